use super::*;

fn ok(process: u64, invoked: u64, completed: u64, operations: impl IntoIterator<Item = Operation>) -> Transaction {
    Transaction::committed(process, invoked, completed).with(operations)
}

fn append(key: &str, element: u64) -> Operation {
    Operation::append(key, element)
}

fn list(key: &str, elements: &[u64]) -> Operation {
    Operation::read_list(key, elements)
}

fn strict(transactions: impl IntoIterator<Item = Transaction>) -> Vec<(Phenomenon, bool)> {
    let found = History::from_iter(transactions).check(Level::StrictSerializable);
    found.into_iter().map(|anomaly| (anomaly.phenomenon, anomaly.real_time)).collect()
}

fn snapshot(transactions: impl IntoIterator<Item = Transaction>) -> Vec<(Phenomenon, bool)> {
    let found = History::from_iter(transactions).check(Level::Snapshot);
    found.into_iter().map(|anomaly| (anomaly.phenomenon, anomaly.real_time)).collect()
}

/// Transactions that could have run one after the other are let pass, with unknown outcomes that took effect or did not, reads
/// of own writes, registers, points, and attempts.
#[test]
fn good_histories_pass() {
    let attempt = Attempt { ended: 6, operations: vec![list("/x", &[1]), append("/x", 3)] };
    let history = [
        ok(0, 1, 2, [append("/x", 1), list("/x", &[1]), Operation::write("/r", 10)]).at(1),
        ok(1, 4, 9, [list("/x", &[1, 2]), append("/x", 3), list("/x", &[1, 2, 3])]).with_attempt(attempt).at(5),
        Transaction::unknown(2, 3).with([append("/x", 2), append("/y", 7)]),
        Transaction::unknown(3, 3).with([append("/x", 8)]),
        Transaction::aborted(3, 3, 5).with([append("/x", 9)]),
        ok(4, 3, 12, [Operation::read("/r", 10), Operation::write("/r", 11), Operation::read("/r", 11)]).at(7),
        ok(0, 20, 21, [list("/x", &[1, 2, 3]), list("/y", &[7]), Operation::read("/r", 11)]).at(7),
    ];
    assert_eq!(strict(history.clone()), []);
    assert_eq!(snapshot(history), []);
}

/// An aborted write that anybody sees, in an attempt too, is G1a.
#[test]
fn g1a() {
    let aborted = Transaction::aborted(0, 1, 2).with([append("/x", 1), Operation::write("/r", 5)]);
    assert_eq!(strict([aborted.clone(), ok(1, 3, 4, [list("/x", &[1])])]), [(Phenomenon::G1a, false)]);
    assert_eq!(strict([aborted.clone(), ok(1, 3, 4, [Operation::read("/r", 5)])]), [(Phenomenon::G1a, false)]);
    let attempt = Attempt { ended: 4, operations: vec![list("/x", &[1])] };
    let saw = ok(1, 3, 6, []).with_attempt(attempt);
    let found = History::from_iter([aborted, saw]).check(Level::StrictSerializable);
    assert!(found[0].phenomenon == Phenomenon::G1a && found[0].in_attempt, "{found:?}");
}

/// A value that its transaction wrote over, and that others see, is G1b.
#[test]
fn g1b() {
    let two = ok(0, 1, 9, [append("/x", 1), append("/x", 2)]);
    let last = ok(2, 20, 21, [list("/x", &[1, 2])]);
    assert!(strict([two, ok(1, 2, 3, [list("/x", &[1])]), last]).contains(&(Phenomenon::G1b, false)));
    let two = ok(0, 1, 9, [Operation::write("/r", 1), Operation::write("/r", 2)]);
    assert!(strict([two, ok(1, 2, 3, [Operation::read("/r", 1)])]).contains(&(Phenomenon::G1b, false)));
}

/// Two transactions whose writes are in one order here and in the other one there are G0.
#[test]
fn g0() {
    let history = [
        ok(0, 1, 9, [append("/x", 1), append("/y", 1)]),
        ok(1, 1, 9, [append("/x", 2), append("/y", 2)]),
        ok(2, 20, 21, [list("/x", &[1, 2]), list("/y", &[2, 1])]),
    ];
    assert_eq!(strict(history.clone()), [(Phenomenon::G0, false)]);
    assert_eq!(snapshot(history), [(Phenomenon::G0, false)]);
}

/// Two transactions that each see the other one's write are G1c.
#[test]
fn g1c() {
    let history = [ok(0, 1, 9, [append("/x", 1), list("/y", &[2])]), ok(1, 1, 9, [append("/y", 2), list("/x", &[1])])];
    assert_eq!(strict(history.clone()), [(Phenomenon::G1c, false)]);
    assert_eq!(snapshot(history), [(Phenomenon::G1c, false)]);
}

/// Read skew is G-single, in an attempt too; a lost update of a list is G-single, and of a register it has its own name.
#[test]
fn g_single() {
    let write = ok(0, 1, 9, [append("/x", 1), append("/y", 2)]);
    let last = ok(3, 20, 21, [list("/x", &[1]), list("/y", &[2])]);
    let skewed = [list("/x", &[]), list("/y", &[2])];
    assert_eq!(strict([write.clone(), ok(1, 1, 9, skewed.clone()), last.clone()]), [(Phenomenon::GSingle, false)]);
    assert_eq!(snapshot([write.clone(), ok(1, 1, 9, skewed.clone()), last.clone()]), [(Phenomenon::GSingle, false)]);

    let attempt = Attempt { ended: 2, operations: skewed.to_vec() };
    let found = History::from_iter([write, ok(1, 1, 9, []).with_attempt(attempt), last]).check(Level::Snapshot);
    assert!(found[0].phenomenon == Phenomenon::GSingle && found[0].in_attempt, "{found:?}");

    let update = |process, value| ok(process, 3, 9, [Operation::read("/r", 1), Operation::write("/r", value)]);
    let lost = [ok(0, 1, 2, [Operation::write("/r", 1)]), update(1, 2), update(2, 3)];
    assert_eq!(strict(lost.clone()), [(Phenomenon::LostUpdate, false), (Phenomenon::G2, false)]);
    assert_eq!(snapshot(lost), [(Phenomenon::LostUpdate, false)]);
    let update = |process, value| ok(process, 3, 9, [list("/x", &[]), append("/x", value)]);
    let lost = [update(1, 2), update(2, 3), ok(0, 20, 21, [list("/x", &[2, 3])])];
    assert_eq!(snapshot(lost), [(Phenomenon::GSingle, false)]);
}

/// A read of what was overwritten before it began is G-single with real time, of lists and of registers.
#[test]
fn stale_reads() {
    let stale = [ok(0, 1, 2, [append("/x", 1)]), ok(1, 3, 4, [list("/x", &[])]), ok(2, 5, 6, [list("/x", &[1])])];
    assert_eq!(strict(stale.clone()), [(Phenomenon::GSingle, true)]);
    assert_eq!(snapshot(stale), [(Phenomenon::GSingle, true)]);
    let write = |invoked, value| ok(0, invoked, invoked + 1, [Operation::write("/r", value)]);
    let stale = [write(1, 1), write(3, 2), ok(1, 5, 6, [Operation::read("/r", 1)])];
    assert_eq!(strict(stale), [(Phenomenon::GSingle, true)]);
    let stale = [write(1, 1), ok(1, 5, 6, [Operation::read("/r", None)])];
    assert_eq!(strict(stale), [(Phenomenon::GSingle, true)]);
}

/// Two readers that see two writes in two orders: a cycle with two overtaken reads that are not next to each other.
#[test]
fn g_nonadjacent() {
    let history = [
        ok(0, 1, 9, [append("/x", 1)]),
        ok(1, 1, 9, [append("/y", 2)]),
        ok(2, 1, 9, [list("/x", &[1]), list("/y", &[])]),
        ok(3, 1, 9, [list("/x", &[]), list("/y", &[2])]),
    ];
    assert_eq!(strict(history.clone()), [(Phenomenon::GNonadjacent, false)]);
    assert_eq!(snapshot(history), [(Phenomenon::GNonadjacent, false)]);
}

/// Write skew is G2: strict serializability does not allow it, and snapshot isolation does.
#[test]
fn g2() {
    let history = [
        ok(0, 1, 9, [list("/x", &[]), append("/y", 1)]),
        ok(1, 1, 9, [list("/y", &[]), append("/x", 2)]),
        ok(2, 20, 21, [list("/x", &[2]), list("/y", &[1])]),
    ];
    assert_eq!(strict(history.clone()), [(Phenomenon::G2, false)]);
    assert_eq!(snapshot(history), []);
}

/// An unknown outcome that was seen counts whole: who sees one half of it sees read skew.
#[test]
fn unknown_outcomes_count_whole_once_seen() {
    let unknown = Transaction::unknown(0, 1).with([append("/x", 1), append("/y", 2)]);
    let half = ok(1, 5, 6, [list("/x", &[1]), list("/y", &[])]);
    assert_eq!(strict([unknown.clone(), half]), [(Phenomenon::GSingle, false)]);
    assert_eq!(strict([unknown, ok(1, 5, 6, [list("/x", &[]), list("/y", &[])])]), []);
}

/// Writes that are gone, twice there, from nowhere, or in two orders are told by their names.
#[test]
fn plain_mistakes() {
    let write = ok(0, 1, 2, [append("/x", 1)]);
    let lost = strict([write.clone(), ok(1, 3, 4, [list("/x", &[])])]);
    assert_eq!(lost, [(Phenomenon::LostWrite, false), (Phenomenon::GSingle, true)]);
    assert!(strict([write.clone(), ok(1, 3, 4, [list("/x", &[1, 1])])]).contains(&(Phenomenon::Duplicate, false)));
    assert_eq!(strict([write.clone(), ok(1, 3, 4, [list("/x", &[1, 5])])]), [(Phenomenon::Unwritten, false)]);
    let (one, two) = (ok(1, 3, 4, [list("/x", &[1, 2])]), ok(1, 5, 6, [list("/x", &[2, 1])]));
    let found = strict([write, ok(0, 1, 2, [append("/x", 2)]), one, two]);
    assert!(found.contains(&(Phenomenon::IncompatibleOrder, false)), "{found:?}");
    let own = [append("/x", 1), list("/x", &[])];
    assert_eq!(strict([ok(0, 1, 2, own)]), [(Phenomenon::Internal, false)]);
    assert_eq!(
        strict([ok(0, 1, 2, [list("/x", &[]), list("/x", &[1])]), ok(1, 1, 2, [append("/x", 1)])])[0],
        (Phenomenon::Internal, false)
    );
}

/// Points that contradict what was seen are told.
#[test]
fn points() {
    let write = ok(0, 1, 9, [append("/x", 1)]).at(7);
    assert_eq!(strict([write.clone(), ok(1, 1, 9, [list("/x", &[1])]).at(7)]), []);
    assert_eq!(strict([write.clone(), ok(1, 1, 9, [list("/x", &[1])]).at(6)]), [(Phenomenon::PointOrder, false)]);
    let before = ok(1, 1, 9, [list("/x", &[])]).at(7);
    let last = ok(1, 20, 29, [list("/x", &[1])]).at(9);
    assert_eq!(strict([write, before, last]), [(Phenomenon::PointOrder, false)]);
}

/// The text for Elle has each call and each end, in order of time.
#[test]
fn edn() {
    let history = History::from_iter([
        ok(0, 1, 4, [append("/x", 1), list("/x", &[1])]),
        Transaction::unknown(1, 2).with([list("/x", &[]), append("/x", 2)]),
        Transaction::aborted(2, 3, 5).with([append("/x", 3)]),
        ok(2, 6, 7, [Operation::read("/r", 1)]),
    ]);
    let expected = r#"{:type :invoke, :process 0, :f :txn, :value [[:append "/x" 1] [:r "/x" nil]], :index 0, :time 1}
{:type :invoke, :process 1, :f :txn, :value [[:r "/x" nil] [:append "/x" 2]], :index 1, :time 2}
{:type :invoke, :process 2, :f :txn, :value [[:append "/x" 3]], :index 2, :time 3}
{:type :ok, :process 0, :f :txn, :value [[:append "/x" 1] [:r "/x" [1]]], :index 3, :time 4}
{:type :fail, :process 2, :f :txn, :value [[:append "/x" 3]], :index 4, :time 5}
{:type :info, :process 1, :f :txn, :value [[:r "/x" nil] [:append "/x" 2]], :index 5, :time 8}
"#;
    assert_eq!(history.to_edn(), expected);
    let expected = r#"{:type :invoke, :process 2, :f :txn, :value [[:r "/r" nil]], :index 0, :time 6}
{:type :ok, :process 2, :f :txn, :value [[:r "/r" 1]], :index 1, :time 7}
"#;
    assert_eq!(history.to_register_edn(), expected);
}

/// A history may be much longer than the stack is deep.
#[test]
fn long_histories_are_checked() {
    let key = |n: u64| format!("/{n}");
    let step = |n: u64| ok(n % 8, 2 * n, 2 * n + 1, [list(&key(n), &[1]), append(&key(n + 1), 1)]);
    let mut history = vec![ok(0, 0, 1, [append("/1", 1)])];
    history.extend((1..20_000).map(step));
    assert_eq!(strict(history.clone()), []);
    history.push(ok(9, 50_000, 50_001, [list("/1", &[])]));
    assert_eq!(strict(history), [(Phenomenon::GSingle, true)]);
}
