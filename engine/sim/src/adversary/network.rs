//! The network that adversaries act in: who has which channels with the victim.

use fulmen_proto::commitment::ChannelType;
use fulmen_proto::forward::{Command, Event, NodeConfig, OpenChannelRequest};
use fulmen_wire::units::{ChainHash, FeeratePerKw, Msat, Sat};

use super::world::{HONEST, Image, LIARS, VICTIM, World};
use crate::chain::funding_transaction;
use crate::machine::MachineSpec;
use crate::violation::{Violation, ensure, violation};

/// The channels: opener and acceptor. The second liar opens without anchors.
const CHANNELS: [[usize; 2]; 5] =
    [[VICTIM, HONEST[0]], [VICTIM, HONEST[1]], [LIARS[0], VICTIM], [LIARS[1], VICTIM], [VICTIM, LIARS[1]]];
const CAPACITY: Sat = Sat(10_000_000);
/// Enough for the funding outputs to be past the depth at which they are watched most closely.
const BLOCKS: usize = 14;

/// Opens all channels with a victim of `shards` shards.
pub(super) fn open(shards: u16) -> Result<Image, Violation> {
    let mut world = World::new((0..5).map(|machine| spec(machine, shards)).collect())?;
    HONEST.into_iter().chain(LIARS).for_each(|machine| world.connect(machine));
    rest(&mut world)?;
    for (number, [opener, acceptor]) in (0..).zip(CHANNELS) {
        open_channel(&mut world, number, opener, acceptor)?;
    }
    for (signer, channel_type) in [ChannelType::StaticRemotekey, ChannelType::Anchors].into_iter().enumerate()
    {
        world.connect_signer(signer);
        let said = world.signers[signer].open(channel_type, CAPACITY);
        world.utter(signer, said);
        rest(&mut world)?;
    }
    for _ in 0..BLOCKS {
        world.mine();
        rest(&mut world)?;
    }
    // Turns that send nothing become durable with time.
    for _ in 0..100 {
        world.round()?;
    }
    let open = world.channel_ids(VICTIM).len();
    let expected = CHANNELS.len() + world.signers.len();
    ensure!(open == expected, Progress, "{open} of {expected} channels of the victim are open");
    ensure!(
        world.signers.iter().all(|signer| signer.scid().is_some()),
        Progress,
        "the channel of a signer is not ready"
    );
    Ok(world.into_image())
}

fn spec(machine: usize, shards: u16) -> MachineSpec {
    let mut config = NodeConfig::new(ChainHash::REGTEST, [&[0, 20][..], &[machine as u8; 20]].concat());
    config.feerate = FeeratePerKw(1_000);
    config.channel.minimum_depth = 1;
    // Both kinds of channel are attacked.
    config.anchors_only = false;
    if LIARS.contains(&machine) {
        // Liars allow themselves everything that the victim has to refuse.
        config.channel.max_dust_htlc_exposure = Msat::MAX_MONEY;
        if machine == LIARS[1] {
            config.channel.channel_type = ChannelType::StaticRemotekey;
        }
    }
    MachineSpec {
        seed: [machine as u8 + 0x31; 32],
        config,
        shards: if machine == VICTIM { shards } else { 1 },
    }
}

fn open_channel(world: &mut World, number: u64, opener: usize, acceptor: usize) -> Result<(), Violation> {
    let push = Msat(CAPACITY.to_msat().0 / 2);
    let peer = world.id(acceptor);
    let open = OpenChannelRequest { peer, user_id: number, capacity: CAPACITY, push, policy: None };
    world.command(opener, Command::OpenChannel(open));
    rest(world)?;
    let needed = world.events.iter().find_map(|(machine, event)| match event {
        Event::FundingNeeded { temporary_channel_id, user_id, amount, script, .. }
            if *machine == opener && *user_id == number =>
        {
            Some((*temporary_channel_id, *amount, script.clone()))
        }
        _ => None,
    });
    let Some((temporary_channel_id, amount, script)) = needed else {
        return violation!(Progress, "channel {number} is not accepted");
    };
    let transaction = funding_transaction(number, amount, script);
    world.command(opener, Command::FundingTransaction { temporary_channel_id, transaction });
    rest(world)
}

fn rest(world: &mut World) -> Result<(), Violation> {
    for _ in 0..2_000 {
        if !world.round()? {
            return Ok(());
        }
    }
    violation!(Progress, "the network does not come to rest")
}
