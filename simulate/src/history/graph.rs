use std::collections::HashSet;

use petgraph::graph::{DiGraph, EdgeIndex, NodeIndex};

use super::register::registers;
use super::versions::{Versions, list_reads};
use super::view::View;
use super::{Anomaly, Phenomenon};

/// Why one transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Edge {
    /// The second one wrote over the first one's write, or behind it.
    WriteWrite,
    /// The second one read the first one's write.
    WriteRead,
    /// The second one wrote over what the first one had read.
    ReadWrite,
    /// The second one began after the first one had ended.
    RealTime,
}

/// Who comes before whom. The first nodes are those of the view; the others are moments between the end of some and the
/// beginning of others, so that real time takes as many edges as there are nodes and not their square.
pub(super) struct Graph {
    pub(super) edges: DiGraph<(), Edge>,
    pub(super) nodes: usize,
}

impl Graph {
    pub(super) fn of(view: &View<'_>, versions: &Versions<'_>) -> Self {
        let mut graph = Self { edges: DiGraph::new(), nodes: view.nodes.len() };
        for _ in 0..graph.nodes {
            graph.edges.add_node(());
        }
        let mut edges = HashSet::new();
        let mut add = |from: usize, to: usize, edge: Edge| {
            if from != to && edges.insert((from, to, edge)) {
                graph.edges.add_edge(NodeIndex::new(from), NodeIndex::new(to), edge);
            }
        };
        add_lists(view, versions, &mut add);
        add_registers(view, &mut add);
        graph.add_real_time(view);
        graph
    }

    fn add_real_time(&mut self, view: &View<'_>) {
        let mut begins: Vec<(u64, usize)> = view.nodes.iter().enumerate().map(|(at, node)| (node.began, at)).collect();
        let mut ends: Vec<(u64, usize)> =
            view.nodes.iter().enumerate().filter_map(|(at, node)| Some((node.ended?, at))).collect();
        begins.sort_unstable();
        ends.sort_unstable();
        let mut ends = ends.into_iter().peekable();
        let mut moment: Option<NodeIndex> = None;
        for (began, node) in begins {
            while let Some((_, ended)) = ends.next_if(|(ended, _)| *ended < began) {
                let next = self.edges.add_node(());
                self.edges.add_edge(NodeIndex::new(ended), next, Edge::RealTime);
                if let Some(before) = moment {
                    self.edges.add_edge(before, next, Edge::RealTime);
                }
                moment = Some(next);
            }
            if let Some(moment) = moment {
                self.edges.add_edge(moment, NodeIndex::new(node), Edge::RealTime);
            }
        }
    }

    /// Whether this is a node of the view, and not a moment.
    pub(super) fn is_seen(&self, node: NodeIndex) -> bool {
        node.index() < self.nodes
    }

    pub(super) fn ends(&self, edge: EdgeIndex) -> (NodeIndex, NodeIndex) {
        self.edges.edge_endpoints(edge).expect("an edge of this graph")
    }

    /// Holds the points that transactions were told against the order of their effects. A transaction that wrote nothing may
    /// have the point of the one whose write it saw.
    pub(super) fn check_points(&self, view: &View<'_>, found: &mut Vec<Anomaly>) {
        let point = |node: NodeIndex| {
            let node = &view.nodes[node.index()];
            view.history.transactions()[node.transaction].point.filter(|_| !node.is_attempt)
        };
        for edge in self.edges.edge_indices() {
            let kind = self.edges[edge];
            let (from, to) = self.ends(edge);
            if kind == Edge::RealTime || !self.is_seen(from) || !self.is_seen(to) {
                continue;
            }
            let (Some(first), Some(second)) = (point(from), point(to)) else {
                continue;
            };
            if first > second || (first == second && kind != Edge::WriteRead) {
                let text = format!(
                    "{} at point {first} comes before {} at point {second}",
                    view.name(from.index()),
                    view.name(to.index())
                );
                let places = [from, to].map(|node| view.nodes[node.index()].transaction);
                found.push(Anomaly::new(Phenomenon::PointOrder, places, text));
                return;
            }
        }
    }
}

fn add_lists(view: &View<'_>, versions: &Versions<'_>, add: &mut impl FnMut(usize, usize, Edge)) {
    let node_of = |key: &str, element: u64| view.writer.get(&(key, element)).and_then(|&writer| view.node_of[writer]);
    let unseen = |key: &str| versions.unseen.get(key).into_iter().flatten().filter_map(|&writer| view.node_of[writer]);
    for (key, elements) in &versions.lists {
        for pair in elements.windows(2) {
            if let (Some(first), Some(second)) = (node_of(key, pair[0]), node_of(key, pair[1])) {
                add(first, second, Edge::WriteWrite);
            }
        }
        if let Some(last) = elements.last().and_then(|&last| node_of(key, last)) {
            unseen(key).for_each(|later| add(last, later, Edge::WriteWrite));
        }
    }
    for (node, key, elements) in list_reads(view) {
        if let Some(writer) = elements.last().and_then(|&last| node_of(key, last)) {
            add(writer, node, Edge::WriteRead);
        }
        match versions.lists[key].get(elements.len()) {
            Some(&next) => node_of(key, next).into_iter().for_each(|next| add(node, next, Edge::ReadWrite)),
            None => unseen(key).for_each(|later| add(node, later, Edge::ReadWrite)),
        }
    }
}

fn add_registers(view: &View<'_>, add: &mut impl FnMut(usize, usize, Edge)) {
    for register in registers(view).into_values() {
        let node_of = |transaction: usize| view.node_of[transaction].expect("writers took effect");
        let successions = register.successions(view);
        for &(first, second) in &successions {
            add(node_of(first), node_of(second), Edge::WriteWrite);
        }
        for &(node, found) in &register.readers {
            match found {
                Some(writer) => {
                    add(node_of(writer), node, Edge::WriteRead);
                    for (_, later) in successions.iter().filter(|(first, _)| *first == writer) {
                        add(node, node_of(*later), Edge::ReadWrite);
                    }
                }
                None if register.vanished => {}
                None => register.writers.iter().for_each(|later| add(node, node_of(*later), Edge::ReadWrite)),
            }
        }
    }
}
