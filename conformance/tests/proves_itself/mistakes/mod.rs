//! Mistakes that authors of backends make, planted in a layer over a real backend, and the laws that name them.
//!
//! The layer is between the suite and the backend, as a driver is between a client and its server: where it makes no mistake
//! every law holds that holds without it. It can lose replies, stall and be wiped, whatever lies below.

mod coordinator;
mod lives;
mod mistake;
mod sessions;
mod store;
mod world;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use avout_conformance::{Backend, Fixture, run_law};
use avout_core::Result;

use crate::prove::{assert_all_broken, run_all};
use mistake::Mistake;
use world::World;

/// Each mistake with the laws that it must break.
const BREAKS: &[(Mistake, &[&str])] = &[
    (
        Mistake::LostReplyAsFailure,
        &["coordinator::a_lost_reply_is_an_unknown_outcome", "state_container::a_lost_reply_is_an_unknown_outcome"],
    ),
    (
        Mistake::NoTimeLimit,
        &["coordinator::every_call_ends_on_a_stalled_server", "state_container::every_call_ends_on_a_stalled_server"],
    ),
    (
        Mistake::NeverLost,
        &[
            "coordinator::a_wiped_namespace_is_lost_to_its_clients",
            "coordinator::a_namespace_made_anew_is_not_the_one_that_was_lost",
            "state_container::a_wiped_store_is_lost_to_its_clients",
        ],
    ),
    (
        Mistake::RealmNotKept,
        &[
            "coordinator::capabilities_are_constant_and_the_same_for_all_clients",
            "coordinator::survives_reopening",
            "state_container::survives_reopening",
        ],
    ),
    (
        Mistake::BeginningIsNow,
        &[
            "coordinator::a_read_as_of_the_beginning_is_none_of_now",
            "coordinator::a_read_as_of_what_is_to_come_is_refused",
        ],
    ),
    (Mistake::ReceiveLimit, &["coordinator::a_read_of_many_large_records_is_answered"]),
    (Mistake::ChecksOfAFollower, &["coordinator::a_commit_that_only_checks_passes_on_nothing_old"]),
    (
        Mistake::LateWatch,
        &["coordinator::a_watch_is_in_place_when_it_is_given", "state_container::a_watch_is_in_place_when_it_is_given"],
    ),
    (
        Mistake::SilentReconnect,
        &[
            "coordinator::a_watch_outlives_a_cut",
            "coordinator::a_watch_outlives_a_stalled_server",
            "state_container::a_watch_outlives_a_cut",
        ],
    ),
    (Mistake::ReadInParts, &["coordinator::a_snapshot_never_shows_half_a_commit"]),
    (
        Mistake::ReadOfAFollower,
        &["coordinator::an_acknowledged_commit_is_read_by_all", "state_container::what_is_set_is_read_by_all"],
    ),
    (Mistake::VersionAsRevision, &["coordinator::a_deleted_keys_revisions_never_return"]),
    (Mistake::CommitTooLarge, &["coordinator::takes_commits_up_to_its_limits"]),
    (
        Mistake::TooManyKeys,
        &["coordinator::takes_commits_up_to_its_limits", "coordinator::a_read_names_as_many_keys_as_it_may"],
    ),
    (Mistake::FreshIncomplete, &["coordinator::a_conflict_names_stale_keys_only"]),
    (Mistake::WrongPoint, &["coordinator::points_grow", "coordinator::no_keys_ask_for_the_point_alone"]),
    (
        Mistake::ChecksUnchecked,
        &["coordinator::a_failing_check_alone_conflicts", "coordinator::a_failing_check_stops_the_puts"],
    ),
    (
        Mistake::ListByText,
        &["coordinator::lists_by_whole_parts_sorted", "state_container::keys_are_listed_by_kind_and_prefix"],
    ),
    (Mistake::OverwrittenValue, &["versioned_state_container::another_value_never_takes_the_place_of_the_first"]),
    (
        Mistake::SessionRevived,
        &["sessions::a_session_that_was_ended_is_never_revived", "sessions::a_session_that_expired_is_never_revived"],
    ),
    (Mistake::SessionShort, &["sessions::a_session_lives_as_long_as_it_shows_signs_of_life"]),
    (Mistake::SessionEndless, &["sessions::a_session_without_signs_of_life_ends_in_time"]),
    (Mistake::SessionCounted, &["sessions::a_session_is_begun_once_however_often_it_is_asked"]),
    (Mistake::AliveSorted, &["sessions::who_is_alive_is_told_in_order"]),
];

/// The laws that a mistake of these breaks.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    BREAKS.iter().flat_map(|(_, names)| names.iter().copied())
}

/// Where the real backends of a test are.
type Place = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// A real backend under a layer with one mistake.
struct Mistaken {
    place: Place,
    world: Arc<World>,
    limit: Duration,
}

impl Mistaken {
    fn new(place: &Place, mistake: Mistake) -> Self {
        let limit = Duration::from_secs(if mistake == Mistake::Nothing { 60 } else { 8 });
        Self { place: Arc::clone(place), world: Arc::new(World::new(mistake)), limit }
    }
}

#[async_trait]
impl Fixture for Mistaken {
    fn name(&self) -> &str {
        "mistaken"
    }

    async fn open(&self, namespace: &str) -> Result<Backend> {
        let opened = avout::open((self.place)(&self.world.namespace(namespace))).await?;
        let client = world::Client::new(&self.world);
        Ok(Backend {
            coordinator: Some(coordinator::wrap(opened.coordinator, client.clone())),
            store: Some(store::wrap(opened.store, client)),
        })
    }

    async fn cut_connections(&self, _: &str) -> bool {
        self.world.cut();
        true
    }

    async fn lose_reply(&self, _: &str) -> bool {
        self.world.lose_reply();
        true
    }

    async fn stall(&self, _: &str) -> bool {
        self.world.stall(true);
        true
    }

    async fn resume(&self, _: &str) {
        self.world.stall(false);
        self.world.cut();
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn wipe(&self, _: &str) -> bool {
        self.world.wipe();
        true
    }

    /// A mistake is waited for no longer than it takes to see it; what is right may be slow on a busy machine.
    fn hint_delay(&self) -> Duration {
        Duration::from_secs(if self.world.mistake == Mistake::Nothing { 10 } else { 1 })
    }

    fn time_limit(&self) -> Duration {
        self.limit
    }
}

/// Each mistake breaks each law that is named for it, and without one they all hold.
fn prove(place: &Place) {
    let mistaken: Vec<_> = BREAKS.iter().flat_map(|(m, laws)| laws.iter().map(move |law| (*m, *law))).collect();
    let laws: BTreeSet<&str> = names().collect();
    let right: Vec<_> = laws.into_iter().map(|law| (Mistake::Nothing, law)).collect();
    let run = |(mistake, law): (Mistake, &'static str)| run_law(Mistaken::new(place, mistake), law);
    let broken = run_all(&right, run, |verdict| !verdict.is_passed());
    assert!(broken.is_empty(), "laws that do not hold where nothing is wrong: {broken:#?}");
    assert_all_broken(&mistaken, run);
}

/// Each mistake, made over SQLite, breaks the laws that name it.
#[test]
fn each_mistake_over_sqlite_breaks_its_laws() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = folder.path().to_owned();
    prove(&(Arc::new(move |name: &str| format!("sqlite:{}/{name}.db", path.display())) as Place));
}

/// Each mistake, made over Redis, breaks the laws that name it.
#[cfg(all(unix, feature = "servers"))]
#[test]
fn each_mistake_over_redis_breaks_its_laws() {
    use avout_conformance::servers::shared;
    let runtime = tokio::runtime::Runtime::new().expect("threads are left");
    let url = match runtime.block_on(shared::redis_url("{namespace}")) {
        Ok(url) => url,
        Err(why) => {
            let required = std::env::var("AVOUT_TEST_REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|name| name.trim() == "redis"), "{why}, and AVOUT_TEST_REQUIRE names it");
            return eprintln!("skipped: {why}");
        }
    };
    prove(&(Arc::new(move |name: &str| url.replace("{namespace}", name)) as Place));
}
