//! The price of success: Fulmen's answers under several weights beside LDK's, over the same queries.
//!
//! `route/weights/F`: the mean probability of success where halving it costs `F` times the default, by
//! the judge's formula, LDK's default scorer beside it; fees and blocks are further figures. Takes no times. Queries
//! and updates are drawn as for the comparison of one mode; only routes that both find count.

use fulmen_wire::units::Msat;
use serde_json::json;

use crate::measure::Row;
use crate::route::compare::Sides;
use crate::route::evaluate::{Judge, Worth};
use crate::route::network::Network;
use crate::route::{Mode, Options, ldk, ours};

/// How many times the price of halving the probability is the default's.
const FACTORS: [f64; 7] = [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0];

/// Gives a row for each factor.
pub(crate) fn run(
    options: &Options,
    network: &mut Network,
    sides: &mut Sides<'_>,
    judge: &mut Judge,
    mode: &Mode,
) -> Vec<Row> {
    let modes = FACTORS.map(|factor| scaled(mode, factor));
    let mut worths: Vec<Vec<(Worth, Worth)>> = FACTORS.map(|_| Vec::new()).into();
    for at in 0..options.queries {
        for _ in 0..options.updates {
            let update = network.update();
            sides.ldk.update(&update);
            sides.ours.update(&[update]);
            judge.set_policy(update.directed.scid, update.directed.direction, update.policy);
        }
        let ask = network.ask(options.amounts_sat[at % options.amounts_sat.len()] * 1000);
        let question = sides.ldk.question(&ask, mode);
        let Some(peer) = sides.ldk.answer(&question, mode, sides.silence) else { continue };
        let peer = judge.judge(&ask, &ldk::parts(&peer));
        for (mode, worths) in modes.iter().zip(&mut worths) {
            if let Some(routes) = sides.ours.answer(&mut sides.seeker, &ask, mode) {
                worths.push((peer.clone(), judge.judge(&ask, &ours::parts(&routes))));
            }
        }
    }
    FACTORS
        .iter()
        .zip(&modes)
        .zip(&worths)
        .map(|((factor, mode), worths)| row(*factor, mode, worths))
        .collect()
}

/// The mode with another price of halving the probability.
fn scaled(mode: &Mode, factor: f64) -> Mode {
    let mut weights = mode.weights;
    weights.halving = Msat((weights.halving.0 as f64 * factor) as u64);
    weights.halving_millionths = (f64::from(weights.halving_millionths) * factor) as u32;
    Mode { weights, ..*mode }
}

fn row(factor: f64, mode: &Mode, worths: &[(Worth, Worth)]) -> Row {
    let mean = |value: &dyn Fn(&(Worth, Worth)) -> f64| {
        worths.iter().map(value).sum::<f64>() / worths.len().max(1) as f64
    };
    let (peer, fulmen) = (mean(&|(peer, _)| peer.success), mean(&|(_, ours)| ours.success));
    let further = json!({
        "found_by_both": worths.len(),
        "halving_msat": mode.weights.halving.0,
        "halving_millionths": mode.weights.halving_millionths,
        "peer_fee_msat_mean": mean(&|(peer, _)| peer.fee_msat as f64),
        "fulmen_fee_msat_mean": mean(&|(_, ours)| ours.fee_msat as f64),
        "peer_blocks_mean": mean(&|(peer, _)| f64::from(peer.blocks)),
        "fulmen_blocks_mean": mean(&|(_, ours)| f64::from(ours.blocks)),
    });
    let further = further.as_object().cloned().unwrap_or_default();
    let plain = super::row(&format!("route/weights/{factor}"), (peer, fulmen), further);
    // More is better here.
    Row { unit: "success", ratio: fulmen / peer, ..plain }
}
