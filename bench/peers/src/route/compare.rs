//! One mode through both sides: the same queries, the same updates between them, times and worth of the answers.
//!
//! Owns the order of things. The sides take turns in blocks of queries, so that neither always runs on the other's
//! cold caches; before each query both take in the same updates, which are timed apart. Afterwards the judge goes
//! through the same updates and judges each answer by the policies of its moment.

use serde_json::{Map, Value, json};

use crate::measure::{Clock, Row, microseconds};
use crate::route::evaluate::{Ask, Judge, Worth};
use crate::route::ldk::{self, Ldk, Silence};
use crate::route::network::{Network, Update};
use crate::route::ours::{self, Ours, Seeker};
use crate::route::{Mode, Options};

/// How many queries one side does before the other takes its turn.
const BLOCK: usize = 20;

/// One query and its answers.
struct Case {
    updates: Vec<Update>,
    ask: Ask,
    peer_us: f64,
    ours_us: f64,
    peer: Option<Worth>,
    ours: Option<Worth>,
}

/// The cost of applying updates, in microseconds, and their number.
#[derive(Default)]
pub(crate) struct Updating {
    pub(crate) peer_us: f64,
    pub(crate) ours_us: f64,
    pub(crate) updates: usize,
}

/// Both sides, ready.
pub(crate) struct Sides<'a> {
    pub(crate) ldk: Ldk<'a>,
    pub(crate) silence: &'a Silence,
    pub(crate) ours: Ours,
    pub(crate) seeker: Seeker,
}

/// Runs one mode and gives its rows.
pub(crate) fn run(
    options: &Options,
    network: &mut Network,
    sides: &mut Sides<'_>,
    judge: &mut Judge,
    mode: &Mode,
    updating: &mut Updating,
) -> Vec<Row> {
    let mut cases = Vec::new();
    while cases.len() < options.queries {
        let mut block: Vec<_> = (0..BLOCK.min(options.queries - cases.len()))
            .map(|at| draw(options, network, cases.len() + at))
            .collect();
        turns(sides, mode, &mut block, updating, judge);
        cases.extend(block);
        eprint!("\rroute/{}: {} queries", mode.name, cases.len());
    }
    eprintln!();
    rows(options, mode, &cases)
}

fn draw(options: &Options, network: &mut Network, at: usize) -> Case {
    let amount_msat = options.amounts_sat[at % options.amounts_sat.len()] * 1000;
    Case {
        updates: (0..options.updates).map(|_| network.update()).collect(),
        ask: network.ask(amount_msat),
        peer_us: 0.0,
        ours_us: 0.0,
        peer: None,
        ours: None,
    }
}

/// A block of queries, LDK first, then Fulmen, then the judge.
fn turns(sides: &mut Sides<'_>, mode: &Mode, block: &mut [Case], updating: &mut Updating, judge: &mut Judge) {
    let mut answers = Vec::new();
    for case in &mut *block {
        updating.peer_us += microseconds(Clock::Thread, &mut || {
            for update in &case.updates {
                sides.ldk.update(update);
            }
        });
        updating.updates += case.updates.len();
        let question = sides.ldk.question(&case.ask, mode);
        let mut answer = None;
        case.peer_us = microseconds(Clock::Thread, &mut || {
            answer = sides.ldk.answer(&question, mode, sides.silence);
        });
        answers.push((answer, None));
    }
    for (case, answer) in block.iter_mut().zip(&mut answers) {
        updating.ours_us += microseconds(Clock::Thread, &mut || sides.ours.update(&case.updates));
        case.ours_us = microseconds(Clock::Thread, &mut || {
            answer.1 = sides.ours.answer(&mut sides.seeker, &case.ask, mode);
        });
    }
    for (case, (peer, ours)) in block.iter_mut().zip(&answers) {
        for update in &case.updates {
            judge.set_policy(update.directed.scid, update.directed.direction, update.policy);
        }
        case.peer = peer.as_ref().map(|route| judge.judge(&case.ask, &ldk::parts(route)));
        case.ours = ours.as_ref().map(|routes| judge.judge(&case.ask, &ours::parts(routes)));
    }
}

/// The percentile of a sorted list.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted.get((sorted.len().saturating_sub(1)) * percent / 100).copied().unwrap_or(f64::NAN)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The percentiles of both sides over the queries that either found a route for.
fn rows(options: &Options, mode: &Mode, cases: &[Case]) -> Vec<Row> {
    let found: Vec<&Case> = cases.iter().filter(|case| case.peer.is_some() || case.ours.is_some()).collect();
    let over = |side: fn(&Case) -> f64, amount: Option<u64>| {
        let counted = found.iter().filter(|case| amount.is_none_or(|sat| case.ask.amount_msat == sat * 1000));
        sorted(counted.map(|case| side(case)))
    };
    let peer: fn(&Case) -> f64 = |case| case.peer_us;
    let ours: fn(&Case) -> f64 = |case| case.ours_us;
    let percents = [50, 90, 99].into_iter();
    percents
        .map(|percent| {
            let figure = |side| percentile(&over(side, None), percent);
            let spread = |side| {
                sorted(options.amounts_sat.iter().map(|sat| percentile(&over(side, Some(*sat)), percent)))
            };
            let (peers, fulmens) = (spread(peer), spread(ours));
            let ratios = sorted(found.iter().map(|case| case.peer_us / case.ours_us));
            let mut further = if percent == 50 { quality(cases) } else { Map::new() };
            further.insert("median_of_ratios".into(), json!(percentile(&ratios, 50)));
            Row {
                case: format!("route/{}/p{percent}", mode.name),
                unit: "us",
                peer: figure(peer),
                peer_min: peers.first().copied().unwrap_or(f64::NAN),
                peer_max: peers.last().copied().unwrap_or(f64::NAN),
                fulmen: figure(ours),
                fulmen_min: fulmens.first().copied().unwrap_or(f64::NAN),
                fulmen_max: fulmens.last().copied().unwrap_or(f64::NAN),
                ratio: figure(peer) / figure(ours),
                further,
            }
        })
        .collect()
}

/// The worth of the answers, over the queries both found a route for.
fn quality(cases: &[Case]) -> Map<String, Value> {
    let both: Vec<(&Worth, &Worth)> =
        cases.iter().filter_map(|case| case.peer.as_ref().zip(case.ours.as_ref())).collect();
    let mean = |value: &dyn Fn(&(&Worth, &Worth)) -> f64| {
        both.iter().map(value).sum::<f64>() / both.len().max(1) as f64
    };
    let violations = |side: fn(&Case) -> &Option<Worth>| {
        let worths = cases.iter().filter_map(|case| side(case).as_ref());
        let all: Vec<&String> = worths.flat_map(|worth| &worth.violations).collect();
        for violation in all.iter().take(5) {
            eprintln!("violation: {violation}");
        }
        all.len()
    };
    let count = |test: &dyn Fn(&Case) -> bool| cases.iter().filter(|case| test(case)).count();
    let figures = json!({
        "queries": cases.len(),
        "found_by_both": both.len(),
        "peer_found": count(&|case| case.peer.is_some()),
        "fulmen_found": count(&|case| case.ours.is_some()),
        "found_by_peer_alone": count(&|case| case.peer.is_some() && case.ours.is_none()),
        "fulmen_dearer": both.iter().filter(|(peer, ours)| ours.fee_msat > peer.fee_msat).count(),
        "peer_fee_msat_mean": mean(&|(peer, _)| peer.fee_msat as f64),
        "fulmen_fee_msat_mean": mean(&|(_, ours)| ours.fee_msat as f64),
        "peer_success_mean": mean(&|(peer, _)| peer.success),
        "fulmen_success_mean": mean(&|(_, ours)| ours.success),
        "peer_blocks_mean": mean(&|(peer, _)| f64::from(peer.blocks)),
        "fulmen_blocks_mean": mean(&|(_, ours)| f64::from(ours.blocks)),
        "peer_hops_mean": mean(&|(peer, _)| peer.hops as f64),
        "fulmen_hops_mean": mean(&|(_, ours)| ours.hops as f64),
        "peer_parts_mean": mean(&|(peer, _)| peer.parts as f64),
        "fulmen_parts_mean": mean(&|(_, ours)| ours.parts as f64),
        "peer_violations": violations(|case| &case.peer),
        "fulmen_violations": violations(|case| &case.ours),
    });
    match figures {
        Value::Object(figures) => figures,
        _ => Map::new(),
    }
}
