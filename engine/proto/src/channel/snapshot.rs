//! The byte form of a channel's whole durable state, for checkpoints.
//!
//! Owns: the fields written of a channel, phase by phase, and how it is rebuilt. Does not know the fields that the
//! forwarder adds to a channel; see `forward::state::checkpoint`.
//!
//! Everything that follows from the rest is left out: secrets (from the seed and the key index), commitment parameters
//! with, keys derived ahead, and how the connection and a closing negotiation stand, since both begin anew after a
//! restart. Onions are written only while they may be needed.
//!
//! Invariant: [`Channel::read_snapshot`] restores the channel that [`Channel::write_snapshot`] wrote, as far as the
//! deltas that may follow and [`Channel::replay_end`] can tell.
//!
//! Budget: 1.5 kB for an idle channel with 1,000 commitments, of which 320 B are the peer's revealed secrets, and 50 us
//! to read it; the bench `restart` counts.

use fulmen_wire::message::{AcceptChannel, OpenChannel};
use fulmen_wire::onion::OnionPacket;
use fulmen_wire::units::ChannelId;

use super::config::channel_type_from_features;
use super::funded::{Funded, Link, Shutdown};
use super::htlc::{HtlcEntry, PendingRemoval, Side, Stage, UpdateOrder};
use super::negotiate::Negotiating;
use super::opening::{AwaitingAccept, AwaitingFundingCreated, AwaitingFundingSigned};
use super::params::{Agreed, Params, Terms};
use super::terms::{accept_points, open_points};
use super::updates::{FeeUpdate, Updates};
use super::{Channel, Failed, Phase};
#[cfg(test)]
use crate::durable::sample::Sampler;
use crate::durable::{Decoder, Durable, Encoder, RecordError, durable_struct};
use crate::keys::{Basepoints, ChannelSecrets, CommitmentNumber, NodeSeed, SecretStore};

/// More updates than any channel has seen: numbers read stay below, so that counting on cannot overflow.
const ORDER_MAX: u64 = u64::MAX / 2;

durable_struct! {
    Basepoints { funding, revocation, payment, delayed_payment, htlc }
    Terms {
        dust_limit, max_htlc_value_in_flight, channel_reserve, htlc_minimum, to_self_delay, max_accepted_htlcs,
    }
    Agreed {
        opener, channel_type, funding, outpoint, announce, minimum_depth, config, features, local_terms,
        remote_terms, remote_basepoints, remote_shutdown_scriptpubkey,
    }
    Shutdown { wanted, sent, received }
    FeeUpdate { feerate, stage, order }
    PendingRemoval { removal, stage, order }
}

/// Where a channel's keys come from.
struct Keys<'a> {
    seed: &'a NodeSeed,
    key_index: u64,
}

impl Keys<'_> {
    /// The secrets whose basepoints come next.
    fn read(&self, input: &mut Decoder<'_>) -> Result<ChannelSecrets, RecordError> {
        Ok(ChannelSecrets::derive_known(self.seed, self.key_index, Durable::read(input)?))
    }
}

impl Channel {
    /// Appends the channel. `keeps_onion` says of the HTLC that one side offered under an id whether its onion is
    /// needed.
    pub(crate) fn write_snapshot(&self, out: &mut Encoder<'_>, keeps_onion: &dyn Fn(Side, u64) -> bool) {
        match &self.phase {
            Phase::AwaitingAccept(phase) => {
                out.raw().u8(0);
                phase.write(out);
            }
            Phase::AwaitingFunding(phase) => {
                out.raw().u8(1);
                phase.opening().write(out);
                phase.accept().write(out);
            }
            Phase::AwaitingFundingSigned(phase) => {
                out.raw().u8(2);
                phase.funded.write(out, keeps_onion);
                phase.transaction.write(out);
                phase.temporary_channel_id.write(out);
            }
            Phase::AwaitingFundingCreated(phase) => {
                out.raw().u8(3);
                phase.secrets.basepoints().write(out);
                phase.config.write(out);
                phase.features.write(out);
                phase.open.write(out);
                phase.accept.write(out);
            }
            Phase::Confirming(funded) => {
                out.raw().u8(4);
                funded.write(out, keeps_onion);
            }
            Phase::Normal(funded) => {
                out.raw().u8(5);
                funded.write(out, keeps_onion);
            }
            Phase::Negotiating(negotiating) => {
                out.raw().u8(6);
                negotiating.funded.write(out, keeps_onion);
                negotiating.agreed.write(out);
            }
            Phase::Failed(failed) => {
                out.raw().u8(7);
                failed.channel_id.write(out);
                failed.error.write(out);
                out.raw().u8(u8::from(failed.funded.is_some()));
                if let Some(funded) = &failed.funded {
                    funded.write(out, keeps_onion);
                }
            }
            Phase::Changing => debug_assert!(false, "never seen outside of a fold"),
        }
    }

    /// Reads a channel of the node with this seed, whose keys have this index.
    pub(crate) fn read_snapshot(
        input: &mut Decoder<'_>,
        seed: &NodeSeed,
        key_index: u64,
    ) -> Result<Channel, RecordError> {
        let keys = &Keys { seed, key_index };
        let funded = |input: &mut Decoder<'_>| Funded::read(input, keys).map(Box::new);
        let phase = match input.tag()? {
            (_, 0) => Phase::AwaitingAccept(Box::new(AwaitingAccept::read(input, keys)?)),
            (_, 1) => {
                let opening = AwaitingAccept::read(input, keys)?;
                Phase::AwaitingFunding(Box::new(opening.accepted(read_accept(input)?)))
            }
            (_, 2) => Phase::AwaitingFundingSigned(Box::new(AwaitingFundingSigned {
                funded: Funded::read(input, keys)?,
                transaction: Durable::read(input)?,
                temporary_channel_id: Durable::read(input)?,
            })),
            (_, 3) => Phase::AwaitingFundingCreated(Box::new(AwaitingFundingCreated {
                secrets: keys.read(input)?,
                config: Durable::read(input)?,
                features: Durable::read(input)?,
                open: read_open(input)?,
                accept: read_accept(input)?,
            })),
            (_, 4) => Phase::Confirming(funded(input)?),
            (_, 5) => Phase::Normal(funded(input)?),
            (_, 6) => {
                let funded = funded(input)?;
                Phase::Negotiating(Box::new(Negotiating {
                    agreed: Durable::read(input)?,
                    ..Negotiating::new(funded)
                }))
            }
            (_, 7) => Phase::Failed(Box::new(Failed {
                channel_id: ChannelId::read(input)?,
                error: Durable::read(input)?,
                funded: if bool::read(input)? { Some(funded(input)?) } else { None },
            })),
            (offset, tag) => {
                return Err(RecordError::UnknownTag { offset, what: "phase of a channel", tag });
            }
        };
        Ok(Channel { phase })
    }
}

fn read_open(input: &mut Decoder<'_>) -> Result<OpenChannel, RecordError> {
    let open = OpenChannel::read(input)?;
    let typed = open.channel_type.as_ref().and_then(channel_type_from_features).is_some();
    match open_points(&open) {
        Ok(_) if typed => Ok(open),
        _ => Err(input.inconsistent("an open_channel that nobody would have accepted")),
    }
}

fn read_accept(input: &mut Decoder<'_>) -> Result<AcceptChannel, RecordError> {
    let accept = AcceptChannel::read(input)?;
    let checked = accept_points(&accept).map(|_| ());
    checked.map_err(|_| input.inconsistent("an accept_channel with an impossible point"))?;
    Ok(accept)
}

impl AwaitingAccept {
    fn write(&self, out: &mut Encoder<'_>) {
        self.secrets.basepoints().write(out);
        self.config.write(out);
        self.features.write(out);
        self.open.write(out);
    }

    fn read(input: &mut Decoder<'_>, keys: &Keys<'_>) -> Result<AwaitingAccept, RecordError> {
        Ok(AwaitingAccept {
            secrets: keys.read(input)?,
            config: Durable::read(input)?,
            features: Durable::read(input)?,
            open: read_open(input)?,
        })
    }
}

impl Funded {
    fn write(&self, out: &mut Encoder<'_>, keeps_onion: &dyn Fn(Side, u64) -> bool) {
        self.secrets.basepoints().write(out);
        self.params.agreed.write(out);
        self.updates.write(out, keeps_onion);
        self.local_number.write(out);
        self.local_signature.write(out);
        self.local_htlc_signatures.write(out);
        self.remote_number.write(out);
        self.awaiting_revocation.write(out);
        self.remote_point.write(out);
        self.remote_next_point.write(out);
        self.revealed.write(out);
        self.commitment_sent_last.write(out);
        self.shutdown.write(out);
        self.scid.write(out);
        self.funding_transaction.write(out);
        self.ready_received.write(out);
    }

    fn read(input: &mut Decoder<'_>, keys: &Keys<'_>) -> Result<Funded, RecordError> {
        let secrets = keys.read(input)?;
        let params = Params::new(Durable::read(input)?, secrets.basepoints());
        let updates = Updates::read(input, &params)?;
        let local_number = read_number(input)?;
        let local_signature = Durable::read(input)?;
        let local_htlc_signatures = Durable::read(input)?;
        let remote_number = read_number(input)?;
        let awaiting_revocation = Durable::read(input)?;
        let remote_point = Durable::read(input)?;
        Ok(Funded {
            local_number,
            local_signature,
            local_htlc_signatures,
            remote_number,
            awaiting_revocation,
            remote_next_point: Durable::read(input)?,
            revealed: Durable::read(input)?,
            commitment_sent_last: Durable::read(input)?,
            link: Link::Down,
            shutdown: Durable::read(input)?,
            scid: Durable::read(input)?,
            funding_transaction: Durable::read(input)?,
            ready_received: Durable::read(input)?,
            ..Funded::begin(params, secrets, updates, remote_point)
        })
    }
}

fn read_number(input: &mut Decoder<'_>) -> Result<CommitmentNumber, RecordError> {
    input.number(CommitmentNumber::LAST.0).map(CommitmentNumber)
}

impl Updates {
    fn write(&self, out: &mut Encoder<'_>, keeps_onion: &dyn Fn(Side, u64) -> bool) {
        self.settled_local.write(out);
        self.feerate.write(out);
        out.list(self.fees.iter());
        self.next_offered_id.write(out);
        self.next_received_id.write(out);
        self.latest_order.write(out);
        for entries in [&self.offered, &self.received] {
            out.raw().bigsize(entries.len() as u64);
            for entry in entries.values() {
                out.omit_onions(!keeps_onion(entry.offered_by, entry.htlc.id));
                entry.htlc.write(out);
                entry.added.write(out);
                entry.removal.write(out);
                entry.over_dust_exposure.write(out);
                entry.order.write(out);
            }
        }
        out.omit_onions(false);
    }

    fn read(input: &mut Decoder<'_>, params: &Params) -> Result<Updates, RecordError> {
        let mut updates = Updates::new(
            params.agreed.funding.to_msat(),
            params.agreed.opener,
            Durable::read(input)?,
            Durable::read(input)?,
        );
        updates.fees = input.list()?;
        updates.next_offered_id = input.number(ORDER_MAX)?;
        updates.next_received_id = input.number(ORDER_MAX)?;
        updates.latest_order = UpdateOrder(input.number(ORDER_MAX)?);
        for (offered_by, entries) in
            [(Side::Local, &mut updates.offered), (Side::Remote, &mut updates.received)]
        {
            for _ in 0..input.raw().bigsize()? {
                let entry = HtlcEntry {
                    htlc: Durable::read(input)?,
                    offered_by,
                    added: Stage::read(input)?,
                    removal: Durable::read(input)?,
                    over_dust_exposure: Durable::read(input)?,
                    order: Durable::read(input)?,
                };
                entries.insert(entry.htlc.id, entry);
            }
        }
        Ok(updates)
    }
}

impl Durable for SecretStore {
    fn write(&self, out: &mut Encoder<'_>) {
        self.next().write(out);
        // How many there are follows from the number.
        self.entries().iter().for_each(|secret| secret.write(out));
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, RecordError> {
        // One past the last number is that of a store which knows all secrets.
        let next = CommitmentNumber(input.number(CommitmentNumber::LAST.0 + 1)?);
        let count = u64::BITS - next.0.leading_zeros();
        let entries = (0..count).map(|_| Durable::read(input)).collect::<Result<_, _>>()?;
        SecretStore::from_entries(next, entries)
            .map_err(|_| input.inconsistent("more or fewer revealed secrets than their number"))
    }

    #[cfg(test)]
    fn sample(sampler: &mut Sampler) -> Self {
        let next = CommitmentNumber(sampler.number(CommitmentNumber::LAST.0));
        let count = u64::BITS - next.0.leading_zeros();
        let entries = (0..count).map(|_| sampler.array()).collect();
        SecretStore::from_entries(next, entries).expect("as many as the number needs")
    }
}

/// Onions of HTLCs we offered that were left out of a record because they follow from those that came in.
impl Channel {
    /// The HTLCs we offered whose onion is missing though the peer may have to be sent it again.
    pub(crate) fn missing_onions(&self) -> impl Iterator<Item = u64> + '_ {
        let live = self.funded().filter(|_| !matches!(self.phase, Phase::Failed(_)));
        let offered = live.into_iter().flat_map(|funded| funded.updates.offered.values());
        let missing = |entry: &&HtlcEntry| {
            entry.added < Stage::Acknowledged && entry.htlc.onion_routing_packet.is_none()
        };
        offered.filter(missing).map(|entry| entry.htlc.id)
    }

    /// Gives the HTLC we offered under an id its onion back.
    pub(crate) fn supply_onion(&mut self, id: u64, onion: OnionPacket) {
        let funded = match &mut self.phase {
            Phase::Confirming(funded) | Phase::Normal(funded) => funded,
            Phase::Negotiating(negotiating) => &mut negotiating.funded,
            _ => return,
        };
        let waits = |entry: &&mut HtlcEntry| entry.added < Stage::Acknowledged;
        if let Some(entry) = funded.updates.offered.get_mut(&id).filter(waits) {
            entry.htlc.onion_routing_packet = Some(onion);
        }
    }
}
