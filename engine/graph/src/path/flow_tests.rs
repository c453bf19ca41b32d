//! Tests of the flow solver: agreement with brute force over every set of simple paths of small random graphs.

use proptest::prelude::*;

use super::*;

/// A graph whose arcs state the cost of each granule they take.
#[derive(Clone, Debug)]
struct Small {
    nodes: usize,
    arcs: Vec<(u32, u32, Vec<u64>)>,
}

impl FlowGraph for Small {
    fn node_count(&self) -> usize {
        self.nodes
    }

    fn arcs_into(&self, node: u32, mut visit: impl FnMut(u32, u32, u64)) {
        for (arc, (from, to, costs)) in self.arcs.iter().enumerate() {
            if *to == node && !costs.is_empty() {
                visit(arc as u32, *from, costs[0]);
            }
        }
    }

    fn arcs_out_of(&self, node: u32, mut visit: impl FnMut(u32, u32)) {
        for (arc, (from, to, _)) in self.arcs.iter().enumerate() {
            if *from == node {
                visit(arc as u32, *to);
            }
        }
    }

    fn cost(&self, arc: u32, carried: u32) -> Option<u64> {
        self.arcs[arc as usize].2.get(carried as usize).copied()
    }
}

impl Small {
    fn simple_paths(
        &self,
        at: u32,
        payee: u32,
        passed: &mut Vec<u32>,
        path: &mut Vec<u32>,
        all: &mut Vec<Vec<u32>>,
    ) {
        if at == payee {
            all.push(path.clone());
            return;
        }
        for (arc, (from, to, _)) in self.arcs.iter().enumerate() {
            if *from == at && !passed.contains(to) {
                passed.push(*to);
                path.push(arc as u32);
                self.simple_paths(*to, payee, passed, path, all);
                path.pop();
                passed.pop();
            }
        }
    }

    /// The least cost of each number of granules up to `most`, trying every multiset of simple paths.
    fn brute_force(&self, payer: u32, payee: u32, most: usize) -> Vec<Option<u64>> {
        let mut paths = Vec::new();
        self.simple_paths(payer, payee, &mut vec![payer], &mut Vec::new(), &mut paths);
        let mut best = vec![None; most + 1];
        best[0] = Some(0);
        let mut carried = vec![0_usize; self.arcs.len()];
        self.choose(&paths, 0, 0, &mut carried, &mut best);
        best
    }

    fn choose(
        &self,
        paths: &[Vec<u32>],
        first: usize,
        pushed: usize,
        carried: &mut [usize],
        best: &mut [Option<u64>],
    ) {
        let cost: Option<u64> = self
            .arcs
            .iter()
            .zip(carried.iter())
            .map(|((_, _, costs), carried)| costs.get(..*carried).map(|used| used.iter().sum::<u64>()))
            .sum();
        let Some(cost) = cost else { return };
        best[pushed] = Some(best[pushed].map_or(cost, |least| least.min(cost)));
        if pushed + 1 == best.len() {
            return;
        }
        for (at, path) in paths.iter().enumerate().skip(first) {
            path.iter().for_each(|arc| carried[*arc as usize] += 1);
            self.choose(paths, at, pushed + 1, carried, best);
            path.iter().for_each(|arc| carried[*arc as usize] -= 1);
        }
    }
}

fn small() -> impl Strategy<Value = Small> {
    let costs = prop_oneof![
        3 => proptest::collection::vec(0_u64..20, 0..4),
        1 => proptest::collection::vec(0_u64..4, 0..4),
    ]
    .prop_map(|mut costs| {
        costs.sort_unstable();
        costs
    });
    (2_usize..6).prop_flat_map(move |nodes| {
        let end = 0..nodes as u32;
        let arc = (end.clone(), end, costs.clone()).prop_filter("no loops", |(from, to, _)| from != to);
        proptest::collection::vec(arc, 1..11).prop_map(move |arcs| Small { nodes, arcs })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_flow_is_as_cheap_as_brute_force(graphs in proptest::collection::vec(small(), 1..3)) {
        let mut solver = FlowSolver::default();
        for graph in graphs {
            let expected = graph.brute_force(0, 1, 4);
            let first = solver.begin(&graph, (0, 1), u64::MAX);
            prop_assert_eq!(first, expected[1]);
            let mut total = 0;
            for (pushed, expected) in expected.iter().enumerate().skip(1) {
                let added = if first.is_some() { solver.push(&graph) } else { None };
                prop_assert_eq!(added.map(|added| total + added), *expected, "{} granules", pushed);
                let Some(added) = added else { break };
                total += added;
                check_flow(&graph, solver.flows(), pushed as i64, total)?;
            }
        }
    }
}

/// The flow is conserved at each node, within the capacity of arcs, and costs as much as the solver states.
fn check_flow(graph: &Small, flows: &[Flow], pushed: i64, total: u64) -> Result<(), TestCaseError> {
    let mut balance = vec![0_i64; graph.nodes];
    let mut cost = 0;
    for flow in flows {
        let (from, to, costs) = &graph.arcs[flow.arc as usize];
        prop_assert_eq!((*from, *to), (flow.from, flow.to));
        prop_assert!(flow.granules > 0 && flow.granules as usize <= costs.len());
        balance[*from as usize] -= i64::from(flow.granules);
        balance[*to as usize] += i64::from(flow.granules);
        cost += costs[..flow.granules as usize].iter().sum::<u64>();
    }
    prop_assert_eq!((balance[0], balance[1]), (-pushed, pushed));
    prop_assert!(balance[2..].iter().all(|balance| *balance == 0));
    prop_assert_eq!(cost, total);
    Ok(())
}
