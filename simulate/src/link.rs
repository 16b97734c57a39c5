use std::time::Duration;

use crate::World;

/// How long a caller waits for a reply that does not come, unless its own deadline is earlier.
const PATIENCE: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(100), Duration::from_secs(3)];
/// How late a request arrives at most that is late: while the caller waits, or after that.
const LATEST: Duration = Duration::from_millis(2000);

/// A client's way to the servers.
#[derive(Clone)]
pub(crate) struct Link {
    world: World,
    /// `None`: nothing goes wrong on it, and nothing takes time.
    client: Option<usize>,
    /// The client's clock runs ahead.
    ahead: bool,
}

/// What a caller learns of a request.
pub(crate) enum Reply<T> {
    Done(T),
    /// It was surely not carried out and never will be.
    Refused,
    /// It may have been carried out, or may be later.
    Lost,
}

/// What becomes of one request.
enum Fate {
    Fine,
    Refused,
    RequestLost,
    ReplyLost,
    /// It is carried out this much later, and its reply is lost.
    Late(Duration),
    /// It is carried out, answered, and carried out again this much later.
    Twice(Duration),
}

impl Link {
    pub(crate) fn sure(world: World) -> Self {
        Self { world, client: None, ahead: false }
    }

    pub(crate) fn of(world: World, client: usize) -> Self {
        Self { world, client: Some(client), ahead: false }
    }

    /// The way of a client whose clock runs ahead.
    pub(crate) fn with_clock_ahead(self) -> Self {
        Self { ahead: true, ..self }
    }

    pub(crate) fn is_ahead(&self) -> bool {
        self.ahead
    }

    pub(crate) fn is_sure(&self) -> bool {
        self.client.is_none()
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    /// Adds a line to the story. What a sure client does is none.
    pub(crate) fn tell(&self, line: impl FnOnce() -> String) {
        if let Some(client) = self.client {
            self.world.tell(|| format!("client {client}: {}", line()));
        }
    }

    /// Whether a fault of this probability happens to this client.
    pub(crate) fn fault(&self, probability: f64) -> bool {
        self.client.is_some() && self.world.fault(probability)
    }

    /// Sends a request that `apply` carries out at the server. If the caller gives it up on its way, it may arrive all the
    /// same.
    pub(crate) async fn call<T, F>(&self, what: impl Fn() -> String, apply: F) -> Reply<T>
    where
        F: Fn() -> T + Clone + Send + 'static,
    {
        if self.client.is_none() {
            return Reply::Done(apply());
        }
        let fate = self.fate(&what);
        let mut flight = Flight { link: self, apply: Some(apply) };
        self.travel().await;
        let apply = flight.apply.take().expect("it is taken once");
        let lost = match fate {
            Fate::Fine => false,
            Fate::Refused => return Reply::Refused,
            Fate::RequestLost => true,
            Fate::Late(after) => {
                self.again(after, apply.clone());
                true
            }
            Fate::ReplyLost => {
                apply();
                true
            }
            Fate::Twice(after) => {
                self.again(after, apply.clone());
                false
            }
        };
        if lost {
            tokio::time::sleep(PATIENCE[self.world.draw(3) as usize]).await;
            return Reply::Lost;
        }
        let done = apply();
        self.travel().await;
        Reply::Done(done)
    }

    fn fate(&self, what: &impl Fn() -> String) -> Fate {
        let world = &self.world;
        let (fate, name) = if let Some(outage) = world.outage() {
            match world.draw(4) {
                0 | 1 => (Fate::Refused, "refused"),
                2 => (Fate::RequestLost, "lost"),
                _ => (Fate::Late(outage + world.draw_delay(LATEST)), "late"),
            }
        } else if world.fault(world.knobs().faults) {
            match world.draw(6) {
                0 => (Fate::Refused, "refused"),
                1 => (Fate::RequestLost, "lost"),
                2 | 3 => (Fate::ReplyLost, "carried out, and its reply is lost"),
                4 => (Fate::Late(world.draw_delay(LATEST)), "late"),
                _ => (Fate::Twice(world.draw_delay(LATEST)), "carried out, and once more later"),
            }
        } else {
            return Fate::Fine;
        };
        world.count_trouble();
        self.tell(|| format!("{} is {name}", what()));
        fate
    }

    fn again<T>(&self, after: Duration, apply: impl FnOnce() -> T + Send + 'static) {
        let link = self.clone();
        self.world.later(after, move || {
            link.tell(|| "a late request arrives".to_owned());
            apply();
        });
    }

    /// The way to the server or back.
    pub(crate) async fn travel(&self) {
        if self.client.is_none() {
            return;
        }
        let delay = self.world.draw_delay(self.world.knobs().latency);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        } else if self.world.chance(self.world.knobs().yields) {
            tokio::task::yield_now().await;
        }
    }
}

/// A request on its way.
struct Flight<'a, T, F: Fn() -> T + Send + 'static> {
    link: &'a Link,
    apply: Option<F>,
}

impl<T, F: Fn() -> T + Send + 'static> Drop for Flight<'_, T, F> {
    fn drop(&mut self) {
        let Some(apply) = self.apply.take() else { return };
        let world = &self.link.world;
        if world.chance(0.5) {
            self.link.again(world.draw_delay(world.knobs().latency), apply);
        }
    }
}
