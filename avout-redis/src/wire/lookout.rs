//! What a client looks at now and then, and when it doubts that its server is the master.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::connection::{Home, Link};
use super::servers::{Server, Standing};
use crate::options::Address;

/// How often a server that is used is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How soon doubts are followed up, one after the other.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// Follows up a client's doubts, and looks now and then at the servers that it uses. Runs as long as there is the client.
pub(crate) async fn look_out(doubts: Arc<Notify>, client: Weak<Client>) {
    // A look at a server that hangs is to hold up no doubt.
    tokio::join!(follow_doubts(&doubts, &client), look_now_and_then(&client));
}

async fn follow_doubts(doubts: &Notify, client: &Weak<Client>) {
    let mut pause = FIRST_PAUSE;
    let mut doubted = Instant::now();
    loop {
        doubts.notified().await;
        let Some(client) = client.upgrade() else { return };
        client.follow_up().await;
        drop(client);
        // Doubts may come with every request.
        pause = if doubted.elapsed() > LAST_PAUSE * 2 { FIRST_PAUSE } else { (pause * 2).min(LAST_PAUSE) };
        doubted = Instant::now();
        sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
    }
}

async fn look_now_and_then(client: &Weak<Client>) {
    let mut beats = HashMap::new();
    loop {
        sleep(LOOK.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
        let Some(client) = client.upgrade() else { return };
        client.look_at_servers(&mut beats).await;
    }
}

impl Client {
    /// Asks whoever knows whether the servers that are used are masters, and leaves those that are not.
    async fn follow_up(&self) {
        let mut asked: Vec<Address> = Vec::new();
        for link in self.lanes.links() {
            if asked.contains(&link.address) {
                continue;
            }
            asked.push(link.address.clone());
            if self.finder.standing(&link.address, &link.process).await == Standing::Replaced {
                self.leave_all(|other| other.address == link.address && other.process == link.process);
            }
        }
    }

    /// Leaves all servers but this one.
    pub(crate) fn leave_all_but(&self, master: &Address) {
        self.leave_all(|link| link.address != *master);
    }

    fn leave_all(&self, which: impl Fn(&Link) -> bool) {
        let mut left = false;
        for link in self.lanes.links().iter().filter(|link| which(link)) {
            tracing::debug!(address = %link.address, "another server is the master");
            link.cut();
            left = true;
        }
        if left {
            self.another_server();
        }
    }

    /// Looks whether each server that was used since the last look still has the namespace, and keeps its keys. If not, entering
    /// again mends it, or tells.
    async fn look_at_servers(&self, beats: &mut HashMap<Address, u64>) {
        let mut looked: Vec<Address> = Vec::new();
        for link in self.lanes.links() {
            let now = link.wire.pulse.beats();
            if looked.contains(&link.address) || beats.get(&link.address) == Some(&now) {
                continue;
            }
            looked.push(link.address.clone());
            if !self.is_sound(&link).await {
                self.retire_all(&link.address);
                let _ = self.connected(&Home::library()).await;
            }
            beats.insert(link.address.clone(), link.wire.pulse.beats());
        }
        beats.retain(|address, _| {
            looked.contains(address) || self.lanes.links().iter().any(|link| link.address == *address)
        });
    }

    fn retire_all(&self, address: &Address) {
        self.lanes.links().iter().filter(|link| link.address == *address).for_each(|link| link.retire());
    }

    async fn is_sound(&self, link: &Link) -> bool {
        let mut pipe = redis::pipe();
        pipe.cmd("EXISTS").arg(&self.names.meta).cmd("INFO").arg("memory");
        match link.wire.ask_all::<(bool, String)>(&pipe).await {
            Ok((exists, info)) => exists && Server::read(&info).check_eviction().is_ok(),
            Err(error) => {
                self.heed(link, &error);
                true
            }
        }
    }
}
