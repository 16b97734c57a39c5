//! What can be asked of a history.

use super::graph::Graph;
use super::versions::Versions;
use super::view::View;
use super::{Anomaly, History, Level, cycles, edn};

impl History {
    /// Looks for what this level does not allow; the worst comes first. Empty: nothing speaks against it.
    ///
    /// A transaction of unknown outcome counts as committed once anybody has seen one of its writes, and else as if it had not
    /// been. Transactions that nothing orders are ordered by real time, but for that it takes a read: end a history with
    /// one of everything.
    ///
    /// It takes time linear in the history, but for registers, where it is quadratic in the writes of one key.
    pub fn check(&self, level: Level) -> Vec<Anomaly> {
        let view = View::of(self);
        let mut found = view.anomalies.clone();
        let versions = Versions::of(&view, &mut found);
        let graph = Graph::of(&view, &versions);
        if level == Level::StrictSerializable {
            graph.check_points(&view, &mut found);
        }
        cycles::find(&graph, &view, level, &mut found);
        found.sort_by_key(|anomaly| (anomaly.phenomenon, anomaly.real_time));
        found
    }

    /// The history of its lists as EDN, one operation a line, as Jepsen's Elle reads it for `:list-append`.
    ///
    /// Registers are left out, and so are attempts. An operation whose outcome is unknown is `:info`.
    pub fn to_edn(&self) -> String {
        edn::write(self, edn::Kind::Lists)
    }

    /// The history of its registers as EDN, as Elle reads it for `:rw-register`.
    ///
    /// Lists are left out, and so are attempts. A register that was taken away is written as `nil`, which Elle takes for what was
    /// there before all writes: it checks only histories in which none is.
    pub fn to_register_edn(&self) -> String {
        edn::write(self, edn::Kind::Registers)
    }
}
