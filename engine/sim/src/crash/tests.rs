//! The matrix, reduced for every build and in full on request.
//!
//! `FULMEN_CRASH_MATRIX=full cargo test --release -p fulmen-sim crash_matrix -- --nocapture` tries every point of the
//! long script with every kind of survival, and every point of the short one with a second death at each operation
//! after the restart; with `FULMEN_CRASH_STRIDE=N` as well, each Nth run of these. `FULMEN_CRASH_POINT="full 17
//! Prefix 3 5"` replays one point: script, operation, survival, seed, second death.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::world::World;
use super::{CrashMatrix, CrashOutcome, CrashPoint, ScriptLength};
use crate::disk::Survival;
use crate::violation::Violation;

/// How many operations after a restart a second death is tried at.
const AGAIN_OPERATIONS: u64 = 8;

#[test]
fn crash_matrix() {
    if let Ok(point) = std::env::var("FULMEN_CRASH_POINT") {
        let (length, point) = parse(&point).expect("script, operation, survival, seed and second death");
        println!("{:?}", matrix(length).run(point));
        return;
    }
    let survivals = |operation: u64, seed: u64| {
        // Every kind in turn; each operation meets a different one.
        let survival = Survival::EACH[((operation + seed) % 4) as usize];
        CrashPoint { operation, survival, seed: operation * 10 + seed, again: None }
    };
    if std::env::var("FULMEN_CRASH_MATRIX").is_ok_and(|value| value == "full") {
        let every = |operation| (0..4).map(move |seed| survivals(operation, seed));
        tried(ScriptLength::Full, |operations| (0..operations).flat_map(every).collect());
        let twice = move |operation| {
            (0..4 * AGAIN_OPERATIONS).map(move |number| {
                let (seed, again) = (number % 4, Some(number / 4));
                CrashPoint { again, ..survivals(operation, seed) }
            })
        };
        tried(ScriptLength::Short, |operations| (0..operations).flat_map(twice).collect());
    } else {
        tried(ScriptLength::Short, |operations| {
            let again =
                |operation: u64| operation.is_multiple_of(3).then_some(operation / 3 % AGAIN_OPERATIONS);
            let point = |operation| CrashPoint { again: again(operation), ..survivals(operation, 0) };
            (0..operations).map(point).collect()
        });
    }
}

fn matrix(length: ScriptLength) -> CrashMatrix {
    CrashMatrix::new(length).unwrap_or_else(|violation| panic!("undisturbed: {violation:?}"))
}

fn tried(length: ScriptLength, points: impl FnOnce(u64) -> Vec<CrashPoint>) {
    let matrix = matrix(length);
    let stride = std::env::var("FULMEN_CRASH_STRIDE").map_or(1, |stride| stride.parse().expect("a number"));
    let points: Vec<CrashPoint> = points(matrix.operations()).into_iter().step_by(stride).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut found = Vec::new();
        while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.push((*point, matrix.run(*point)));
        }
        found
    };
    let found: Vec<(CrashPoint, Result<CrashOutcome, Violation>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no run panics")).collect()
    });
    let mut total = CrashOutcome::default();
    let mut violations: Vec<(CrashPoint, Violation)> = Vec::new();
    for (point, result) in found {
        match result {
            Ok(outcome) => {
                total.settled += outcome.settled;
                total.failed += outcome.failed;
                total.in_flight += outcome.in_flight;
                total.refused += outcome.refused;
                total.deaths += outcome.deaths;
                total.checkpoints += outcome.checkpoints;
            }
            Err(violation) => violations.push((point, violation)),
        }
    }
    let (operations, undisturbed) = (matrix.operations(), matrix.undisturbed());
    println!(
        "{length:?}: {operations} operations, {} runs, {total:?}; undisturbed {undisturbed:?}",
        points.len()
    );
    let first = violations.first();
    assert!(violations.is_empty(), "{} of {} runs, first {first:#?}", violations.len(), points.len());
    assert!(
        total.deaths >= points.len() && total.in_flight > points.len() / 4,
        "the deaths hit nothing: {total:?}"
    );
}

/// The checks are effective: they notice a disk that does not make synced bytes durable.
#[test]
fn forgotten_syncs_are_noticed() {
    let matrix = matrix(ScriptLength::Short);
    let noticed = (matrix.operations() / 4..matrix.operations()).step_by(7).filter(|operation| {
        let mut world = World::from_image(&matrix.image, 0).expect("the image starts");
        world.ignore_syncs();
        world.crash_at(CrashPoint { operation: *operation, survival: Survival::None, seed: 0, again: None });
        matrix.script.run(&mut world).is_err()
    });
    let (noticed, tried) = (noticed.count(), matrix.operations() * 3 / 4 / 7);
    assert!(noticed as u64 >= tried / 2, "{noticed} of {tried}");
}

fn parse(text: &str) -> Option<(ScriptLength, CrashPoint)> {
    let mut words = text.split_whitespace();
    let length = if words.next()? == "full" { ScriptLength::Full } else { ScriptLength::Short };
    let operation = words.next()?.parse().ok()?;
    let survival = words.next()?;
    let survival = Survival::EACH.into_iter().find(|kind| format!("{kind:?}") == survival)?;
    let seed = words.next()?.parse().ok()?;
    let again = words.next().and_then(|again| again.parse().ok());
    Some((length, CrashPoint { operation, survival, seed, again }))
}
