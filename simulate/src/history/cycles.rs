use std::collections::VecDeque;

use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::{EdgeIndex, NodeIndex};
use petgraph::visit::{EdgeFiltered, EdgeRef as _};

use super::graph::{Edge, Graph};
use super::view::View;
use super::{Anomaly, Level, Phenomenon};

/// How many overtaken reads a cycle may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Overtaken {
    No,
    Once,
    NotTwiceInARow,
    Any,
}

/// Finds cycles, and names the worst one of each kind. A cycle that needs no real time is worse than one that does.
pub(super) fn find(graph: &Graph, view: &View<'_>, level: Level, found: &mut Vec<Anomaly>) {
    // Neither this nor the components by recursion: a history may be long.
    if toposort(&graph.edges, None).is_ok() {
        return;
    }
    for real_time in [false, true] {
        let kinds = [
            (Phenomenon::G0, Overtaken::No, false),
            (Phenomenon::G1c, Overtaken::No, true),
            (Phenomenon::GSingle, Overtaken::Once, true),
            (Phenomenon::GNonadjacent, Overtaken::NotTwiceInARow, true),
            (Phenomenon::G2, Overtaken::Any, true),
        ];
        for (phenomenon, overtaken, reads) in kinds {
            if phenomenon == Phenomenon::G2 && level == Level::Snapshot {
                continue;
            }
            let allowed = |edge: Edge| match edge {
                Edge::WriteWrite => true,
                Edge::WriteRead => reads,
                Edge::ReadWrite => overtaken != Overtaken::No,
                Edge::RealTime => real_time,
            };
            if let Some(cycle) = search(graph, overtaken, &allowed) {
                found.push(tell(graph, view, phenomenon, real_time, &cycle));
                // Whatever is weaker has this one in it.
                return;
            }
        }
    }
}

/// The shortest cycle of these edges.
fn search(graph: &Graph, overtaken: Overtaken, allowed: &dyn Fn(Edge) -> bool) -> Option<Vec<EdgeIndex>> {
    let filtered = EdgeFiltered::from_fn(&graph.edges, |edge| allowed(*edge.weight()));
    let mut component = vec![usize::MAX; graph.edges.node_count()];
    for (number, nodes) in kosaraju_scc(&filtered).into_iter().enumerate().filter(|(_, nodes)| nodes.len() > 1) {
        nodes.iter().for_each(|node| component[node.index()] = number);
    }
    let within = |edge: EdgeIndex| {
        let (from, to) = graph.ends(edge);
        allowed(graph.edges[edge])
            && component[from.index()] != usize::MAX
            && component[from.index()] == component[to.index()]
    };
    // A cycle that has reads overtaken is sought from one of them, and the others from what comes out of a transaction.
    let begins = graph.edges.edge_indices().filter(|&edge| {
        within(edge)
            && match overtaken {
                Overtaken::No => graph.is_seen(graph.ends(edge).0),
                _ => graph.edges[edge] == Edge::ReadWrite,
            }
    });
    let cycles = begins.filter_map(|edge| back(graph, edge, overtaken, &within));
    cycles.min_by_key(|cycle| cycle.iter().filter(|edge| graph.is_seen(graph.ends(**edge).0)).count())
}

/// The shortest way back to where `first` begins, with `first` in front.
fn back(
    graph: &Graph,
    first: EdgeIndex,
    overtaken: Overtaken,
    within: &dyn Fn(EdgeIndex) -> bool,
) -> Option<Vec<EdgeIndex>> {
    let (start, next) = graph.ends(first);
    // A state is a node and whether the step to it overtook a read.
    let place = |node: NodeIndex, after: bool| node.index() * 2 + usize::from(after);
    let mut from: Vec<Option<(usize, EdgeIndex)>> = vec![None; graph.edges.node_count() * 2];
    let begin = place(next, graph.edges[first] == Edge::ReadWrite);
    let mut queue = VecDeque::from([begin]);
    while let Some(at) = queue.pop_front() {
        let (node, after) = (NodeIndex::new(at / 2), at % 2 == 1);
        for edge in graph.edges.edges(node) {
            let overtakes = *edge.weight() == Edge::ReadWrite;
            let fits = match overtaken {
                Overtaken::No | Overtaken::Once => !overtakes,
                // The first step overtakes, so the last one must not either.
                Overtaken::NotTwiceInARow => !(overtakes && (after || edge.target() == start)),
                Overtaken::Any => true,
            };
            let to = place(edge.target(), overtakes);
            if !fits || !within(edge.id()) || to == begin || from[to].is_some() {
                continue;
            }
            from[to] = Some((at, edge.id()));
            if edge.target() == start {
                let mut cycle = vec![edge.id()];
                let mut at = at;
                while let Some((before, edge)) = from[at] {
                    cycle.push(edge);
                    at = before;
                }
                cycle.push(first);
                cycle.reverse();
                return Some(cycle);
            }
            queue.push_back(to);
        }
    }
    None
}

fn tell(graph: &Graph, view: &View<'_>, phenomenon: Phenomenon, real_time: bool, cycle: &[EdgeIndex]) -> Anomaly {
    // Moments between are left out: they are nobody's.
    let steps: Vec<(NodeIndex, Edge)> = cycle
        .iter()
        .map(|&edge| (graph.ends(edge).0, graph.edges[edge]))
        .filter(|(from, _)| graph.is_seen(*from))
        .collect();
    let mut text = Vec::with_capacity(steps.len());
    for (at, (from, why)) in steps.iter().enumerate() {
        let to = steps[(at + 1) % steps.len()].0;
        let why = match why {
            Edge::WriteWrite => "was written over by",
            Edge::WriteRead => "was read by",
            Edge::ReadWrite => "did not see",
            Edge::RealTime => "ended before",
        };
        text.push(format!("{} {why} {}", view.name(from.index()), view.name(to.index())));
    }
    let nodes = || steps.iter().map(|(from, _)| &view.nodes[from.index()]);
    let transactions: Vec<usize> = nodes().map(|node| node.transaction).collect();
    let in_attempt = nodes().any(|node| node.is_attempt);
    let text = text.join(", ");
    Anomaly { in_attempt, ..Anomaly { real_time, ..Anomaly::new(phenomenon, transactions, text) } }
}
