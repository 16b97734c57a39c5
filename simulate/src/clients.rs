//! The clients of a world: who they are, and what lies between them and the servers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use avout_core::Stm;
use avout_core::backend::{Coordinator, Store};

use crate::World;
use crate::coordinator::SimCoordinator;
use crate::link::Link;
use crate::process::{End, Part, Process};
use crate::store::SimStore;
use crate::world::{Inner, lock};

impl World {
    /// A client that meets no fault and no delay, for preparing a test and for looking at what became of it.
    pub fn stm(&self) -> Stm {
        self.client(Link::sure(self.clone()), None)
    }

    /// The second store. The first one is each client's own.
    pub fn second_store(&self) -> Arc<dyn Store> {
        self.store(1, &Link::sure(self.clone()))
    }

    fn store(&self, number: usize, link: &Link) -> Arc<dyn Store> {
        Arc::new(SimStore::new(Arc::clone(&self.0.stores[number]), link.clone()))
    }

    fn client(&self, mut link: Link, process: Option<&Process>) -> Stm {
        let Inner { records, sessions, knobs, changes, .. } = &*self.0;
        let (seed, id) = (self.draw(u64::MAX), u128::from(self.draw(u64::MAX)));
        if let Some(process) = process
            && changes.clocks_ahead
            && self.fault(knobs.clocks_ahead)
        {
            process.tell("has a clock that runs ahead");
            let process = process.clone();
            lock(&self.0.ahead).push(Box::new(move || process.kill()));
            link = link.with_clock_ahead();
        }
        let servers = (Arc::clone(records), Arc::clone(sessions));
        let mut coordinator: Arc<dyn Coordinator> =
            Arc::new(SimCoordinator::new(servers, &knobs.coordinator, link.clone()));
        if let Some(wrap) = &changes.wrap {
            coordinator = wrap(coordinator);
        }
        let second = self.store(1, &link);
        let mut builder = Stm::builder(coordinator, self.store(0, &link))
            // Hints are not lost here, and to look without one would only make a schedule longer.
            .look_every(Duration::from_secs(24 * 3600))
            .seed(seed)
            .client_id(id)
            .cache_bytes(knobs.cache_bytes)
            .session_ttl(knobs.session_ttl)
            .deadline(knobs.deadline.filter(|_| !link.is_sure()));
        if let Some(process) = process {
            builder = builder.tasks(process.tasks());
        }
        if let Some(configure) = &changes.configure {
            builder = configure(builder);
        }
        let stm = builder.build();
        stm.attach(&second);
        stm
    }

    /// Starts a client in a process of its own, which may be killed at any await: all it has is dropped, and `life` is
    /// called again with a new client. What the library does for it in the background ends with it.
    ///
    /// What must not be done twice, such as counting what was acknowledged, `life` keeps outside itself.
    pub fn spawn<F, Fut>(&self, life: F)
    where
        F: Fn(Stm) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.spawn_process(move |stm, _| life(stm));
    }

    /// The same with the process, which can be given tasks of its own.
    pub(crate) fn spawn_process<F, Fut>(&self, life: F)
    where
        F: Fn(Stm, Process) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let number = self.0.clients.fetch_add(1, Ordering::Relaxed) + 1;
        let world = self.clone();
        lock(&self.0.tasks).spawn(async move {
            loop {
                let killed_at = world.chance(world.0.knobs.crashes).then(|| world.draw(300));
                let process = Process::new(&world, number, killed_at);
                let stm = world.client(Link::of(world.clone(), number), Some(&process));
                match process.run(Part::Body, life(stm, process.clone())).await {
                    End::Done => break,
                    End::Killed => {}
                }
            }
        });
    }
}
