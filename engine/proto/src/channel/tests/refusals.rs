//! The page `REFUSALS.md` beside the code: every error has a row, every row the reaction the code has, and a test.

use bitcoin::{OutPoint, ScriptBuf};
use fulmen_wire::features::Features;
use fulmen_wire::units::{CltvDelta, Point};

use super::*;
use crate::channel::{AwaitedAnswer, Reaction, RemovalError};
use crate::commitment::{ClosingError, CommitmentError};
use crate::keys::{CommitmentNumber, InvalidPoint, SecretStoreError};

const PAGE: &str = include_str!("../../../REFUSALS.md");
const ERRORS: &str = include_str!("../error.rs");
const TESTS: [&str; 14] = [
    include_str!("closing.rs"),
    include_str!("crossing.rs"),
    include_str!("errors.rs"),
    include_str!("normal.rs"),
    include_str!("opening.rs"),
    include_str!("reestablish.rs"),
    include_str!("hostile.rs"),
    include_str!("walk.rs"),
    include_str!("../../forward/tests/hostile.rs"),
    include_str!("../../forward/tests/deadlines.rs"),
    include_str!("../../forward/tests/doubt.rs"),
    include_str!("../../forward/tests/overdue.rs"),
    include_str!("../../forward/tests/announcing.rs"),
    include_str!("../../forward/tests/channel_updates.rs"),
];

struct Row {
    error: &'static str,
    reaction: &'static str,
    test: &'static str,
}

fn rows() -> Vec<Row> {
    let cells = |line: &'static str| -> Vec<&'static str> { line.split('|').map(str::trim).collect() };
    let rows = PAGE.lines().filter(|line| line.starts_with("| `")).map(cells);
    rows.map(|cells| Row {
        error: cells[1].trim_matches('`'),
        reaction: cells[4],
        test: cells[5].trim_matches('`').rsplit("::").next().expect("a name"),
    })
    .collect()
}

/// The names of the variants of `ChannelError`, from its source.
fn variants() -> Vec<&'static str> {
    let (_, declaration) = ERRORS.split_once("pub enum ChannelError {").expect("the enum");
    let (body, _) = declaration.split_once("\n}").expect("its end");
    let name = |line: &'static str| {
        let line = line.strip_prefix("    ")?;
        let end = line.find(|c: char| !c.is_alphanumeric()).unwrap_or(line.len());
        (end > 0 && line.starts_with(|c: char| c.is_uppercase())).then_some(&line[..end])
    };
    body.lines().filter_map(name).collect()
}

/// One error for each row, labelled as there.
fn errors() -> Vec<(&'static str, ChannelError)> {
    [errors_in_any_phase(), errors_of_updates(), errors_of_commitments_and_closing()].concat()
}

fn errors_in_any_phase() -> Vec<(&'static str, ChannelError)> {
    use ChannelError as E;
    let (sat, msat, height, id) = (Sat(1), Msat(1), BlockHeight(1), 1);
    let channel_id = ChannelId([1; 32]);
    vec![
        ("UnknownChain", E::UnknownChain { expected: ChainHash::REGTEST, found: ChainHash::BITCOIN }),
        ("ChannelTypeMissing", E::ChannelTypeMissing),
        ("ChannelTypeUnsuitable", E::ChannelTypeUnsuitable(Features::default())),
        ("FundingTooSmall", E::FundingTooSmall { funding: sat, min: sat }),
        ("FundingTooLarge", E::FundingTooLarge { funding: sat }),
        ("PushTooLarge", E::PushTooLarge { push: msat, funding: sat }),
        ("DustLimitTooSmall", E::DustLimitTooSmall { found: sat, min: sat }),
        ("DustLimitTooLarge", E::DustLimitTooLarge { found: sat, max: sat }),
        ("ReserveBelowDustLimit", E::ReserveBelowDustLimit { reserve: sat, dust_limit: sat }),
        ("ReserveTooLarge", E::ReserveTooLarge { found: sat, max: sat }),
        ("MaxAcceptedHtlcsTooLarge", E::MaxAcceptedHtlcsTooLarge { found: 1, max: 1 }),
        ("MaxAcceptedHtlcsTooSmall", E::MaxAcceptedHtlcsTooSmall { found: 1, min: 1 }),
        ("HtlcMinimumTooLarge", E::HtlcMinimumTooLarge { found: msat, max: msat }),
        ("MaxHtlcValueInFlightTooSmall", E::MaxHtlcValueInFlightTooSmall { found: msat, min: msat }),
        ("ToSelfDelayTooLong", E::ToSelfDelayTooLong { found: CltvDelta(1), max: CltvDelta(1) }),
        ("MinimumDepthTooLarge", E::MinimumDepthTooLarge { found: 1, max: 1 }),
        ("OpenerCannotPay", E::OpenerCannotPay { balance: msat, cost: sat }),
        ("BothWithinReserve", E::BothWithinReserve { opener: msat, acceptor: msat, reserve: sat }),
        ("UpfrontScriptForm", E::UpfrontScriptForm(vec![1])),
        ("InvalidPoint", E::InvalidPoint(InvalidPoint { field: "point", value: Point([0; 33]) })),
        ("FundingOutpointTaken", E::FundingOutpointTaken(OutPoint::null())),
        (
            "FundingOutputWrong",
            E::FundingOutputWrong { expected: sat, found: sat, script_pubkey: ScriptBuf::new() },
        ),
        ("DisconnectedWhileOpening", E::DisconnectedWhileOpening),
        ("WrongChannel", E::WrongChannel { expected: channel_id, found: channel_id }),
        ("UnexpectedMessage", E::UnexpectedMessage { message: "ping", state: "normal" }),
        ("PeerError", E::PeerError(String::new())),
        ("OurDecision", E::OurDecision(String::new())),
        ("OfferedHtlcExpired", E::OfferedHtlcExpired { id, cltv_expiry: height, height }),
        ("FulfilledHtlcNearExpiry", E::FulfilledHtlcNearExpiry { id, cltv_expiry: height, height }),
        ("AnswerOverdue(RevokeAndAck)", E::AnswerOverdue(AwaitedAnswer::RevokeAndAck)),
        ("AnswerOverdue(ClosingSigned)", E::AnswerOverdue(AwaitedAnswer::ClosingSigned)),
        ("AnswerOverdue(AcceptChannel)", E::AnswerOverdue(AwaitedAnswer::AcceptChannel)),
        ("StateInDoubt", E::StateInDoubt(String::new())),
        ("Recorded", E::Recorded { text: String::new(), broadcast_allowed: true }),
    ]
}

fn errors_of_updates() -> Vec<(&'static str, ChannelError)> {
    use ChannelError as E;
    let (sat, msat, feerate, height, id) = (Sat(1), Msat(1), FeeratePerKw(1), BlockHeight(1), 1);
    vec![
        ("HtlcIdOutOfOrder", E::HtlcIdOutOfOrder { expected: 1, found: 2 }),
        ("HtlcAmountZero", E::HtlcAmountZero { id }),
        ("HtlcBelowMinimum", E::HtlcBelowMinimum { amount: msat, min: msat }),
        ("TooManyHtlcs", E::TooManyHtlcs { count: 1, max: 1 }),
        ("TooMuchInFlight", E::TooMuchInFlight { total: msat, max: msat }),
        (
            "HtlcNotAffordable",
            E::HtlcNotAffordable { amount: msat, available: msat, balance: msat, reserve: sat, cost: sat },
        ),
        ("FeeOfOpenerNotAffordable", E::FeeOfOpenerNotAffordable { cost: sat, reserve: sat, balance: msat }),
        ("CltvExpiryNotAHeight", E::CltvExpiryNotAHeight(height)),
        ("AddAfterShutdown", E::AddAfterShutdown { id }),
        ("Removal", E::Removal(RemovalError::UnknownHtlc(id))),
        ("FeerateTooLow", E::FeerateTooLow { found: feerate, min: feerate }),
        ("FeerateTooHigh", E::FeerateTooHigh { found: feerate, max: feerate }),
        ("UpdateFeeNotByOpener", E::UpdateFeeNotByOpener),
        ("FeeNotAffordable", E::FeeNotAffordable { feerate, cost: sat, reserve: sat, balance: msat }),
        ("DustExposure", E::DustExposure { feerate, exposure: msat, max: msat }),
    ]
}

fn errors_of_commitments_and_closing() -> Vec<(&'static str, ChannelError)> {
    use ChannelError as E;
    let (sat, msat, number, script) = (Sat(1), Msat(1), CommitmentNumber(1), || vec![1]);
    vec![
        ("HtlcSignatureCount", E::HtlcSignatureCount { expected: 1, found: 2 }),
        ("BadCommitmentSignature", E::BadCommitmentSignature),
        ("BadHtlcSignature", E::BadHtlcSignature { index: 0 }),
        ("Commitment", E::Commitment(CommitmentError::AnchorsUnaffordable { outputs: sat, funding: sat })),
        ("CommitmentFeeTooLow", E::CommitmentFeeTooLow { found: sat, min: sat }),
        ("CommitmentDustExposure", E::CommitmentDustExposure { exposure: msat, max: msat }),
        ("UnexpectedRevocation", E::UnexpectedRevocation),
        ("WrongRevocationSecret", E::WrongRevocationSecret(number)),
        (
            "RevocationSecretNotDerived",
            E::RevocationSecretNotDerived(SecretStoreError::NotFromTheSameSeed { number, earlier: number }),
        ),
        ("ShutdownScriptForm", E::ShutdownScriptForm(script())),
        ("ShutdownScriptMismatch", E::ShutdownScriptMismatch { expected: script(), found: script() }),
        ("ShutdownWithPendingUpdates", E::ShutdownWithPendingUpdates),
        ("OwnShutdownScriptForm", E::OwnShutdownScriptForm),
        ("ClosingFeeTooLarge", E::ClosingFeeTooLarge { fee: sat, balance: msat }),
        ("Closing", E::Closing(ClosingError::NoOutputs { dust_limit: sat })),
        ("BadClosingSignature", E::BadClosingSignature { fee: sat }),
        ("ClosingFeeRangesDisjoint", E::ClosingFeeRangesDisjoint { ours: (sat, sat), theirs: (sat, sat) }),
        ("ClosingFeeOutsideOverlap", E::ClosingFeeOutsideOverlap { fee: sat, min: sat, max: sat }),
        ("ClosingFeeOutOfRange", E::ClosingFeeOutOfRange { fee: sat, min: sat, max: sat }),
        ("ClosingRoundsExceeded", E::ClosingRoundsExceeded(64)),
        ("ReestablishCommitmentNumber", E::ReestablishCommitmentNumber { expected: number, found: 0 }),
        ("ReestablishRevocationNumber", E::ReestablishRevocationNumber { expected: number, found: 0 }),
        ("ReestablishSecret", E::ReestablishSecret(0)),
        ("WeFellBehind", E::WeFellBehind { proven: 2, ours: number }),
        ("PeerFellBehind", E::PeerFellBehind { commitment: 1, revocation: 1 }),
        ("AnnouncementScid", E::AnnouncementScid { expected: Scid(1), found: Scid(2) }),
        ("BadAnnouncementSignature", E::BadAnnouncementSignature { signature: "node_signature" }),
        ("BadChannelUpdateSignature", E::BadChannelUpdateSignature),
    ]
}

#[test]
fn every_error_has_a_row_with_its_reaction() {
    let (rows, errors) = (rows(), errors());
    let labels = |rows: &[Row]| -> Vec<&'static str> { rows.iter().map(|row| row.error).collect() };
    assert_eq!(labels(&rows), errors.iter().map(|(label, _)| *label).collect::<Vec<_>>());
    for (row, (label, error)) in rows.iter().zip(&errors) {
        let expected = match error.reaction() {
            Reaction::Ignore => "ignore",
            Reaction::Wait => "wait",
            Reaction::Warn => "warn",
            Reaction::Fail => "fail",
        };
        assert!(row.reaction.starts_with(expected), "{label}: {expected}, not {}", row.reaction);
        let broadcast = !row.reaction.contains("not broadcast");
        assert_eq!(error.broadcast_allowed(), broadcast, "{label}");
    }
    for variant in variants() {
        let mut names = rows.iter().map(|row| row.error.split('(').next().expect("a name"));
        assert!(names.any(|name| name == variant), "{variant} has no row");
    }
    assert!(variants().len() > 60, "{}", variants().len());
}

#[test]
fn every_row_names_a_test() {
    for Row { error, test, .. } in rows() {
        let definition = format!("fn {test}()");
        assert!(TESTS.iter().any(|source| source.contains(&definition)), "{error}: no test {test}");
    }
}
