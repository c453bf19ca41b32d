//! Payments: random routes, honest and flawed, in one part or several.
//!
//! Owns the drawing of payments and of the operators' other actions. Knows every channel and policy, but no balance of
//! others: many payments fail for lack of one, as they should.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::SecretKey;
use fulmen_proto::forward::{ChannelRef, Command, ExpectedPayment, SendHtlc};
use fulmen_proto::onion::{FailureCode, PaymentData};
use fulmen_proto::payment::{OutgoingPayment, Recipient, RouteHop};
use fulmen_wire::units::{
    BlockHeight, CltvDelta, FeeratePerKw, Msat, PaymentHash, PaymentPreimage, PaymentSecret, Scid,
};

use crate::flow::{Attempt, Flaw, FlowHop, Payment};
use crate::network::{Network, UserAction};
use crate::violation::Violation;

/// The most channels of a route.
const HOPS_MAX: u64 = 5;
/// The `min_final_cltv_expiry_delta` of all payees.
const FINAL_DELTA: CltvDelta = CltvDelta(18);

impl Network {
    /// Executes an operator's action.
    pub(crate) fn act(&mut self, act: UserAction) -> Result<(), Violation> {
        match act {
            UserAction::Pay => self.pay_somebody(),
            UserAction::ChangeFee => self.change_fee(),
            UserAction::Close => self.close_some_channel(),
            UserAction::Recall => {
                let node = self.draw.index(self.nodes.len());
                return self.check_restart(node);
            }
        }
        Ok(())
    }

    fn change_fee(&mut self) {
        let number = self.draw.index(self.channels.len());
        let most = self.draw.pick(&[1_000, 2_500, 20_000]);
        let feerate = FeeratePerKw(self.draw.between(253, most) as u32);
        if let Some(channel_id) = self.channels[number].channel_id {
            self.counts.fee_changes += 1;
            let opener = self.channels[number].ends[0];
            self.command(opener, Command::UpdateFee { channel_id, feerate });
        }
    }

    fn close_some_channel(&mut self) {
        let number = self.draw.index(self.channels.len());
        self.close(number);
    }

    /// Has one end of a channel close it, or both at once.
    pub(crate) fn close(&mut self, number: usize) {
        let Some(channel_id) = self.channels[number].channel_id else { return };
        self.channels[number].closing = true;
        let ends = self.channels[number].ends;
        let who = self.draw.between(0, 2);
        for (index, node) in (0..).zip(ends) {
            if who == 2 || who == index {
                self.command(node, Command::CloseChannel { channel_id, script: None });
            }
        }
    }

    fn pay_somebody(&mut self) {
        let from = self.draw.index(self.nodes.len());
        let Some(path) = self.walk(from, None) else { return };
        let to = path.last().map_or(from, |(_, node)| *node);
        let amount = self.draw_amount(&path);
        let kind = self.draw.between(0, 99);
        let parts = if kind < 25 { self.draw.between(2, 4) } else { 1 };
        let keysend = (25..35).contains(&kind);
        let unknown = (35..45).contains(&kind);
        let flawed = (45..65).contains(&kind);
        let payment = self.new_payment(to, amount, !unknown, keysend);
        if unknown {
            let flaw =
                Flaw { hop: path.len() - 1, code: FailureCode::IncorrectOrUnknownPaymentDetails.to_u16() };
            self.attempt(payment, &path, amount, Some(flaw), |_| {});
        } else if flawed {
            self.flawed_attempt(payment, &path, amount);
        } else if parts > 1 {
            self.pay_in_parts(payment, &path, amount, parts);
        } else {
            self.attempt(payment, &path, amount, None, |_| {});
            if !keysend && self.draw.percent(10) {
                // Somebody pays the same again: one of the two must fail, whichever comes second.
                self.attempt(payment, &path, Msat(amount.0 + 1), None, |_| {});
            }
        }
    }

    /// Pays in parts of different sizes; now and then the last one is left out.
    fn pay_in_parts(&mut self, payment: usize, path: &[(usize, usize)], amount: Msat, parts: u64) {
        let (from, to) = (self.sender_of(path), path.last().map_or(0, |(_, node)| *node));
        let forgets = self.draw.percent(15);
        let mut left = amount.0;
        for part in 0..parts {
            let size = if part + 1 == parts { left } else { self.draw.between(0, left / 2) };
            left -= size;
            if size == 0 || (forgets && part + 1 == parts) {
                continue;
            }
            let other = self.walk(from, Some(to)).unwrap_or_else(|| path.to_vec());
            self.attempt(payment, &other, Msat(size), None, |_| {});
        }
    }

    fn flawed_attempt(&mut self, payment: usize, path: &[(usize, usize)], amount: Msat) {
        let last = path.len() - 1;
        let kind = self.draw.between(0, 3);
        if kind == 0 || last == 0 {
            // The onion is for somebody else.
            let hop = self.draw.index(path.len());
            let stranger = SecretKey::from_slice(&[0x77; 32]).expect("a key");
            let id = stranger.public_key(fulmen_proto::keys::secp()).serialize();
            let flaw = Flaw { hop, code: FailureCode::InvalidOnionHmac.to_u16() };
            self.attempt(payment, path, amount, Some(flaw), |route| {
                route[hop].node_id = fulmen_wire::units::NodeId(id);
            });
            return;
        }
        let hop = self.draw.index(last);
        let flaw = |code: FailureCode| Some(Flaw { hop, code: code.to_u16() });
        match kind {
            1 => self.attempt(payment, path, amount, flaw(FailureCode::UnknownNextPeer), |route| {
                route[hop + 1].short_channel_id = Scid(1);
            }),
            2 => self.attempt(payment, path, amount, flaw(FailureCode::FeeInsufficient), |route| {
                route[hop].amount = Msat(route[hop].amount.0 - 1);
            }),
            _ => self.attempt(payment, path, amount, flaw(FailureCode::IncorrectCltvExpiry), |route| {
                route[hop].cltv_expiry = BlockHeight(route[hop].cltv_expiry.0 - 1);
            }),
        };
    }

    /// Draws a payment, and registers its invoice unless the payee is not to know it.
    pub(crate) fn new_payment(&mut self, to: usize, total: Msat, payable: bool, keysend: bool) -> usize {
        let preimage = PaymentPreimage(self.draw.bytes());
        let hash = PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array());
        let secret = PaymentSecret(self.draw.bytes());
        if payable && !keysend {
            let any = self.draw.percent(20);
            let invoice = ExpectedPayment {
                payment_hash: hash,
                preimage,
                payment_secret: secret,
                amount: (!any).then_some(total),
                min_final_cltv_expiry_delta: FINAL_DELTA,
                expires_at_unix_ms: u64::MAX,
            };
            self.command(to, Command::ExpectPayment(invoice));
        }
        self.flow.add_payment(Payment { hash, preimage, secret, to, total, payable, keysend, received: None })
    }

    /// Sends one part of a payment along a path, after `spoil` has had its way with the route. Gives the attempt's id,
    /// unless its HTLCs could be taken for those of another.
    pub(crate) fn attempt(
        &mut self,
        payment: usize,
        path: &[(usize, usize)],
        amount: Msat,
        flaw: Option<Flaw>,
        spoil: impl Fn(&mut [RouteHop]),
    ) -> Option<u64> {
        let from = self.sender_of(path);
        let mut route = self.route(from, path, amount);
        spoil(&mut route);
        let Payment { hash, preimage, secret, total, keysend, .. } = self.flow.payments[payment];
        let recipient = Recipient {
            payment_data: (!keysend).then_some(PaymentData { payment_secret: secret, total_msat: total }),
            payment_metadata: None,
            keysend_preimage: keysend.then_some(preimage),
        };
        let session_key = SecretKey::from_slice(&self.draw.bytes()).ok()?;
        let outgoing = OutgoingPayment::new(&session_key, hash, &route, &recipient).ok()?;
        let mut sender = from;
        let mut hops = Vec::new();
        for (hop, (channel, to)) in route.iter().zip(path) {
            hops.push(FlowHop {
                channel: *channel,
                from: sender,
                to: *to,
                amount: hop.amount,
                cltv_expiry: hop.cltv_expiry,
                htlc_id: None,
                end: None,
                fulfill_delivered: false,
            });
            sender = *to;
        }
        let send = SendHtlc::new(0, &outgoing);
        let attempt_id = self.flow.add_attempt(Attempt { payment, hops, outgoing, flaw, end: None })?;
        self.command(from, Command::SendHtlc(SendHtlc { attempt_id, ..send }));
        Some(attempt_id)
    }

    /// The HTLCs of a route, from the payee back: amounts and expiries grow by each forwarder's policy.
    fn route(&mut self, from: usize, path: &[(usize, usize)], amount: Msat) -> Vec<RouteHop> {
        let slack = self.draw.between(0, 12) as u16;
        let height = self.nodes[from].driver.occupancy().height;
        let mut cltv_expiry = height.saturating_add(FINAL_DELTA).saturating_add(CltvDelta(slack));
        let mut amount = amount;
        let mut route = Vec::new();
        for (index, (channel, to)) in path.iter().enumerate().rev() {
            let scid = self.channels[*channel].scid.unwrap_or(Scid(0));
            route.push(RouteHop { node_id: self.nodes[*to].id, short_channel_id: scid, amount, cltv_expiry });
            let Some(before) = index.checked_sub(1) else { break };
            let forwarder = &self.nodes[path[before].1];
            let policy = forwarder.driver.shard().policy(ChannelRef::Scid(scid));
            let policy = policy.map_or(forwarder.config.policy, |(_, policy)| policy);
            amount = Msat(amount.0 + policy.fee(amount).0);
            cltv_expiry = cltv_expiry.saturating_add(policy.cltv_expiry_delta);
        }
        route.reverse();
        route
    }

    /// A random walk over channels, no channel twice in one direction; to a certain node if one is named. Pairs of a
    /// channel and the node it leads to.
    fn walk(&mut self, from: usize, to: Option<usize>) -> Option<Vec<(usize, usize)>> {
        let tries = if to.is_some() { 20 } else { 1 };
        for _ in 0..tries {
            let length = self.draw.between(1, HOPS_MAX);
            let turns_back = self.draw.percent(5);
            // Mostly the sender looks at its own channels first.
            let blind = self.draw.percent(10);
            let mut path: Vec<(usize, usize)> = Vec::new();
            let mut at = from;
            while (path.len() as u64) < length {
                let visited = |node: usize| node == from || path.iter().any(|(_, seen)| *seen == node);
                let onward: Vec<(usize, usize)> = (0..self.channels.len())
                    .filter(|number| self.channels[*number].scid.is_some())
                    .filter(|number| self.channels[*number].ends.contains(&at))
                    .filter(|number| blind || !path.is_empty() || self.is_usable(*number, from))
                    .map(|number| {
                        let facts = &self.channels[number];
                        (number, facts.ends[1 - facts.end_of(at)])
                    })
                    .filter(|hop| (turns_back && !path.contains(hop)) || !visited(hop.1))
                    .collect();
                if onward.is_empty() {
                    break;
                }
                let hop = self.draw.pick(&onward);
                path.push(hop);
                at = hop.1;
                if to == Some(at) {
                    break;
                }
            }
            if !path.is_empty() && to.is_none_or(|to| to == at) {
                return Some(path);
            }
        }
        None
    }

    fn is_usable(&self, number: usize, node: usize) -> bool {
        let shard = self.nodes[node].driver.shard();
        let channel = self.channels[number].channel_id.and_then(|id| shard.channel(ChannelRef::Id(id)));
        channel.is_some_and(|channel| channel.is_usable())
    }

    /// The node at the beginning of a path.
    fn sender_of(&self, path: &[(usize, usize)]) -> usize {
        let (channel, to) = path[0];
        let facts = &self.channels[channel];
        facts.ends[1 - facts.end_of(to)]
    }

    fn draw_amount(&mut self, path: &[(usize, usize)]) -> Msat {
        let capacity = path.iter().map(|(channel, _)| self.channels[*channel].capacity.to_msat().0).min();
        let capacity = capacity.unwrap_or(1_000_000);
        let most = match self.draw.between(0, 9) {
            0..3 => 400_000,
            3..7 => capacity / 20,
            7..9 => capacity / 4,
            _ => capacity,
        };
        Msat(self.draw.between(1, most))
    }
}
