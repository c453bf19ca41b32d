//! The well-connected core of a topology: its most connected nodes, and strongly connected components over the
//! directions that payments can be forwarded in.
//!
//! Does not rank by anything but channel counts and labels, so that the same snapshot always has the same core.

use std::cmp::Reverse;

use crate::model::Topology;

impl Topology {
    /// The `count` nodes with most channels enabled both ways, ties going to the lower label, cut to their largest
    /// strongly connected component, and the channels among them.
    #[must_use]
    pub fn core(&self, count: usize) -> Topology {
        let mut degrees = vec![0_usize; self.nodes().len()];
        for channel in self.channels().iter().filter(|channel| channel.enabled_both_ways()) {
            for node in channel.nodes {
                degrees[node] += 1;
            }
        }
        let mut ranked: Vec<usize> = (0..degrees.len()).collect();
        ranked.sort_by_key(|node| (Reverse(degrees[*node]), self.nodes()[*node]));
        let mut chosen = vec![false; degrees.len()];
        for node in ranked.into_iter().take(count) {
            chosen[node] = true;
        }
        let top = self.induced(|node| chosen[node]);
        let members = top.largest_strong_component();
        top.induced(|node| members[node])
    }

    /// Which nodes are in the largest strongly connected component over enabled directions. Of several as large, the
    /// one with the lowest label among its nodes counts.
    #[must_use]
    pub fn largest_strong_component(&self) -> Vec<bool> {
        let mut forward = vec![Vec::new(); self.nodes().len()];
        let mut backward = forward.clone();
        for channel in self.channels() {
            for end in [0, 1].into_iter().filter(|end| channel.enabled(*end).is_some()) {
                let (from, to) = (channel.nodes[end], channel.nodes[1 - end]);
                forward[from].push(to);
                backward[to].push(from);
            }
        }
        // A walk along reversed directions, started at the nodes in the reverse order in which a forward walk left
        // them, cannot leave a component for one not yet numbered.
        let order = departures(&forward);
        let mut component = vec![usize::MAX; forward.len()];
        let mut members: Vec<Vec<usize>> = Vec::new();
        for start in order.into_iter().rev() {
            if component[start] != usize::MAX {
                continue;
            }
            let number = members.len();
            component[start] = number;
            let mut found = vec![start];
            let mut next = 0;
            while next < found.len() {
                for node in &backward[found[next]] {
                    if component[*node] == usize::MAX {
                        component[*node] = number;
                        found.push(*node);
                    }
                }
                next += 1;
            }
            members.push(found);
        }
        let lowest = |nodes: &Vec<usize>| nodes.iter().map(|node| self.nodes()[*node]).min();
        let largest =
            (0..members.len()).max_by_key(|at| (members[*at].len(), Reverse(lowest(&members[*at]))));
        component.into_iter().map(|number| Some(number) == largest).collect()
    }
}

/// The nodes in the order in which a depth-first walk leaves them for good.
fn departures(neighbours: &[Vec<usize>]) -> Vec<usize> {
    let mut entered = vec![false; neighbours.len()];
    let mut order = Vec::with_capacity(neighbours.len());
    for start in 0..neighbours.len() {
        if entered[start] {
            continue;
        }
        entered[start] = true;
        // Each entry is a node on the way and how many of its neighbours have been looked at.
        let mut way = vec![(start, 0)];
        while let Some((node, looked_at)) = way.last_mut() {
            match neighbours[*node].get(*looked_at) {
                Some(next) => {
                    *looked_at += 1;
                    if !entered[*next] {
                        entered[*next] = true;
                        way.push((*next, 0));
                    }
                }
                None => {
                    order.push(*node);
                    way.pop();
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Channel, Label, PartialPolicy};
    use fulmen_wire::units::{CltvDelta, Msat, Sat};
    use proptest::prelude::*;

    fn enabled() -> Option<PartialPolicy> {
        Some(PartialPolicy {
            fee_base: Some(Msat(1)),
            fee_proportional_millionths: Some(1),
            cltv_expiry_delta: Some(CltvDelta(1)),
            htlc_minimum: Some(Msat(1)),
            htlc_maximum: Some(Msat(1)),
            disabled: None,
            inbound: None,
        })
    }

    fn channel(nodes: [usize; 2], policies: [Option<PartialPolicy>; 2]) -> Channel {
        Channel { nodes, scid: None, capacity: Sat(1), is_capacity_stated: true, policies }
    }

    fn directed(nodes: u32, edges: &[(usize, usize)]) -> Topology {
        let edges = edges.iter().filter(|(from, to)| from != to);
        let channels = edges.map(|(from, to)| channel([*from, *to], [enabled(), None]));
        Topology::new((0..nodes).map(Label::Number).collect(), channels.collect()).expect("valid")
    }

    #[test]
    fn a_core_counts_channels_enabled_both_ways_and_breaks_ties_by_label() {
        let both = |one, two| channel([one, two], [enabled(); 2]);
        let half = |one, two| channel([one, two], [enabled(), None]);
        // Node 3 has most channels but one-way ones; 0, 1 and 2 have two good channels each, 4 has one and 5 has one.
        let channels = vec![
            both(0, 1),
            both(1, 2),
            both(0, 2),
            half(3, 0),
            half(3, 1),
            half(3, 2),
            half(3, 4),
            both(4, 5),
        ];
        let labels = [5, 1, 3, 0, 4, 2].map(Label::Number).to_vec();
        let topology = Topology::new(labels, channels).expect("valid");
        assert_eq!(topology.core(3).nodes(), [Label::Number(5), Label::Number(1), Label::Number(3)]);
        assert_eq!(topology.core(2).nodes(), [Label::Number(1), Label::Number(3)]);
        // The fourth by count would be label 2 or 4; label 2 wins, and is then cut off: nothing leads back from it.
        assert_eq!(topology.core(4).nodes().len(), 3);
        assert_eq!(topology.core(4).channels().len(), 3);
        assert_eq!(topology.core(100).nodes().len(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn the_largest_component_is_that_of_mutual_reachability(
            edges in prop::collection::vec((0_usize..7, 0_usize..7), 0..16)
        ) {
            let topology = directed(7, &edges);
            let mut reach = [[false; 7]; 7];
            for (from, to) in &edges {
                reach[*from][*to] = true;
            }
            for middle in 0..7 {
                for from in 0..7 {
                    for to in 0..7 {
                        reach[from][to] |= reach[from][middle] && reach[middle][to];
                    }
                }
            }
            let mutual = |one: usize| -> Vec<bool> {
                (0..7).map(|two| one == two || (reach[one][two] && reach[two][one])).collect()
            };
            let size = |members: &Vec<bool>| members.iter().filter(|member| **member).count();
            let largest = (0..7).map(|node| size(&mutual(node))).max().unwrap_or(0);
            let first = (0..7).find(|node| size(&mutual(*node)) == largest).unwrap_or(0);
            prop_assert_eq!(topology.largest_strong_component(), mutual(first));
        }
    }
}
