//! Shapes: which pairs of nodes are joined.
//!
//! Does not set capacities or policies. Invariants: each edge joins a lower-numbered node to a higher one, no pair is
//! joined twice, and all nodes hang together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::generate::draw::{Draw, Millionths};

/// A generator and its parameters; their bounds are kept by the spec's parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Line { nodes: usize },
    Ring { nodes: usize },
    Star { nodes: usize },
    Grid { width: usize, height: usize },
    Tree { nodes: usize, branch: usize },
    Complete { nodes: usize },
    ErdosRenyi { nodes: usize, probability: Millionths },
    WattsStrogatz { nodes: usize, degree: usize, probability: Millionths },
    BarabasiAlbert { nodes: usize, joins: usize },
    Hub { nodes: usize, hubs: usize },
}

/// Two nodes to be joined by a channel.
pub(crate) struct Edge {
    /// The nodes, the lower number first.
    pub(crate) nodes: [usize; 2],
    /// Whether both are hubs.
    pub(crate) backbone: bool,
}

/// The most hubs one spoke has channels with.
const SPOKE_CHANNELS_MAX: usize = 3;

impl Shape {
    /// The number of nodes.
    pub(crate) const fn nodes(self) -> usize {
        match self {
            Shape::Grid { width, height } => width.saturating_mul(height),
            Shape::Line { nodes }
            | Shape::Ring { nodes }
            | Shape::Star { nodes }
            | Shape::Tree { nodes, .. }
            | Shape::Complete { nodes }
            | Shape::ErdosRenyi { nodes, .. }
            | Shape::WattsStrogatz { nodes, .. }
            | Shape::BarabasiAlbert { nodes, .. }
            | Shape::Hub { nodes, .. } => nodes,
        }
    }

    /// About how many channels there will be, and never far fewer.
    pub(crate) fn channels_expected(self) -> usize {
        let pairs = |nodes: usize| nodes.saturating_mul(nodes - 1) / 2;
        match self {
            Shape::Line { nodes }
            | Shape::Ring { nodes }
            | Shape::Star { nodes }
            | Shape::Tree { nodes, .. } => nodes,
            Shape::Grid { .. } => self.nodes().saturating_mul(2),
            Shape::Complete { nodes } => pairs(nodes),
            Shape::ErdosRenyi { nodes, probability } => probability.of(pairs(nodes)).saturating_add(nodes),
            Shape::WattsStrogatz { nodes, degree, .. } => nodes.saturating_mul(degree / 2),
            Shape::BarabasiAlbert { nodes, joins } => nodes.saturating_mul(joins),
            Shape::Hub { nodes, hubs } => {
                pairs(hubs).saturating_add(nodes.saturating_mul(SPOKE_CHANNELS_MAX))
            }
        }
    }

    /// The edges, in an order that depends on the shape and the draws alone.
    pub(crate) fn edges(self, draw: &mut Draw) -> Vec<Edge> {
        let plain =
            |pairs: Vec<[usize; 2]>| pairs.into_iter().map(|nodes| Edge { nodes, backbone: false }).collect();
        match self {
            Shape::Line { nodes } => plain((1..nodes).map(|node| [node - 1, node]).collect()),
            Shape::Ring { nodes } => {
                plain((1..nodes).map(|node| [node - 1, node]).chain([[0, nodes - 1]]).collect())
            }
            Shape::Star { nodes } => plain((1..nodes).map(|node| [0, node]).collect()),
            Shape::Grid { width, height } => plain(grid(width, height)),
            Shape::Tree { nodes, branch } => {
                plain((1..nodes).map(|node| [(node - 1) / branch, node]).collect())
            }
            Shape::Complete { nodes } => plain(complete(nodes).collect()),
            Shape::ErdosRenyi { nodes, probability } => {
                let pairs = complete(nodes).filter(|_| draw.chance(probability)).collect();
                plain(connected(nodes, pairs, draw))
            }
            Shape::WattsStrogatz { nodes, degree, probability } => {
                let pairs = watts_strogatz(nodes, degree, probability, draw);
                plain(connected(nodes, pairs, draw))
            }
            Shape::BarabasiAlbert { nodes, joins } => plain(barabasi_albert(nodes, joins, draw)),
            Shape::Hub { nodes, hubs } => hub(nodes, hubs, draw),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Line { nodes } => write!(f, "line:{nodes}"),
            Shape::Ring { nodes } => write!(f, "ring:{nodes}"),
            Shape::Star { nodes } => write!(f, "star:{nodes}"),
            Shape::Grid { width, height } => write!(f, "grid:{width}x{height}"),
            Shape::Tree { nodes, branch } => write!(f, "tree:{nodes},branch:{branch}"),
            Shape::Complete { nodes } => write!(f, "complete:{nodes}"),
            Shape::ErdosRenyi { nodes, probability } => write!(f, "er:{nodes},p:{probability}"),
            Shape::WattsStrogatz { nodes, degree, probability } => {
                write!(f, "ws:{nodes},k:{degree},p:{probability}")
            }
            Shape::BarabasiAlbert { nodes, joins } => write!(f, "ba:{nodes},m:{joins}"),
            Shape::Hub { nodes, hubs } => write!(f, "hub:{nodes},hubs:{hubs}"),
        }
    }
}

fn ordered(one: usize, two: usize) -> [usize; 2] {
    [one.min(two), one.max(two)]
}

/// Every pair of the first `nodes` nodes; there may be far too many to hold at once.
fn complete(nodes: usize) -> impl Iterator<Item = [usize; 2]> {
    (0..nodes).flat_map(move |one| (one + 1..nodes).map(move |two| [one, two]))
}

fn grid(width: usize, height: usize) -> Vec<[usize; 2]> {
    let mut pairs = Vec::new();
    for node in 0..width * height {
        if (node + 1) % width != 0 {
            pairs.push([node, node + 1]);
        }
        if node + width < width * height {
            pairs.push([node, node + width]);
        }
    }
    pairs
}

/// A ring lattice whose channels are each moved, with the given probability, to another random far end.
fn watts_strogatz(nodes: usize, degree: usize, probability: Millionths, draw: &mut Draw) -> Vec<[usize; 2]> {
    let lattice: Vec<(usize, usize)> =
        (1..=degree / 2).flat_map(|step| (0..nodes).map(move |node| (node, (node + step) % nodes))).collect();
    let mut neighbours = vec![BTreeSet::new(); nodes];
    for (one, two) in &lattice {
        neighbours[*one].insert(*two);
        neighbours[*two].insert(*one);
    }
    let rewired = lattice.into_iter().map(|(node, mut far)| {
        // A node joined to all others has nowhere to move a channel to.
        if draw.chance(probability) && neighbours[node].len() < nodes - 1 {
            let target = loop {
                let target = draw.below(nodes);
                if target != node && !neighbours[node].contains(&target) {
                    break target;
                }
            };
            neighbours[node].remove(&far);
            neighbours[far].remove(&node);
            neighbours[node].insert(target);
            neighbours[target].insert(node);
            far = target;
        }
        ordered(node, far)
    });
    rewired.collect()
}

/// Grows from a complete graph of `joins + 1` nodes; each further node joins others in proportion to their channels.
fn barabasi_albert(nodes: usize, joins: usize, draw: &mut Draw) -> Vec<[usize; 2]> {
    let mut pairs: Vec<[usize; 2]> = complete(joins + 1).collect();
    // Every node stands here once for each of its channels, so an even draw is one in proportion to them.
    let mut ends: Vec<usize> = pairs.iter().flatten().copied().collect();
    for node in joins + 1..nodes {
        let mut chosen = BTreeSet::new();
        while chosen.len() < joins {
            chosen.insert(ends[draw.below(ends.len())]);
        }
        for other in chosen {
            pairs.push([other, node]);
            ends.extend([other, node]);
        }
    }
    pairs
}

/// Hubs that are all joined to each other, and spokes that each join one to three of them, the first hubs sooner: the
/// hub of rank r is drawn in proportion to 1/(r+1).
fn hub(nodes: usize, hubs: usize, draw: &mut Draw) -> Vec<Edge> {
    let mut edges: Vec<Edge> = complete(hubs).map(|nodes| Edge { nodes, backbone: true }).collect();
    let mut upper_ends = Vec::with_capacity(hubs);
    let mut total = 0;
    for rank in 0..hubs {
        total += 1_000_000_000 / (rank + 1);
        upper_ends.push(total);
    }
    for spoke in hubs..nodes {
        let wanted = (1 + draw.below(SPOKE_CHANNELS_MAX)).min(hubs);
        let mut chosen = BTreeSet::new();
        while chosen.len() < wanted {
            let drawn = draw.below(total);
            chosen.insert(upper_ends.partition_point(|end| *end <= drawn));
        }
        edges.extend(chosen.into_iter().map(|hub| Edge { nodes: [hub, spoke], backbone: false }));
    }
    edges
}

/// Adds one channel from each piece of the graph to the piece of node 0, between random nodes of the two.
fn connected(nodes: usize, mut pairs: Vec<[usize; 2]>, draw: &mut Draw) -> Vec<[usize; 2]> {
    let mut leaders: Vec<usize> = (0..nodes).collect();
    for [one, two] in &pairs {
        let (one, two) = (leader(&mut leaders, *one), leader(&mut leaders, *two));
        leaders[one.max(two)] = one.min(two);
    }
    let mut pieces: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for node in 0..nodes {
        pieces.entry(leader(&mut leaders, node)).or_default().push(node);
    }
    let mut pieces = pieces.into_values();
    let first = pieces.next().unwrap_or_default();
    for piece in pieces {
        let (one, two) = (first[draw.below(first.len())], piece[draw.below(piece.len())]);
        pairs.push(ordered(one, two));
    }
    pairs
}

/// The lowest node of the piece that `node` is in, as far as the pieces have been merged.
fn leader(leaders: &mut [usize], mut node: usize) -> usize {
    while leaders[node] != node {
        leaders[node] = leaders[leaders[node]];
        node = leaders[node];
    }
    node
}
