//! The services that LDK asks of its embedder: empty ones for logs, fees, broadcasts and routes, and the persister of
//! its monitors.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bitcoin::Transaction;
use bitcoin::secp256k1::{self, PublicKey, Secp256k1};
use lightning::blinded_path::message::{BlindedMessagePath, MessageContext, MessageForwardNode};
use lightning::blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs};
use lightning::chain::ChannelMonitorUpdateStatus;
use lightning::chain::chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator};
use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::io;
use lightning::ln::channel_state::ChannelDetails;
use lightning::onion_message::messenger::{Destination, MessageRouter, OnionMessagePath};
use lightning::routing::router::{InFlightHtlcs, Route, RouteParameters, Router};
use lightning::sign::{InMemorySigner, ReceiveAuthKey};
use lightning::util::logger::{Logger, Record};
use lightning::util::persist::{KVStoreSync, MonitorName};
use lightning_persister::fs_store::FilesystemStore;

/// Drops every record before it is formatted.
pub(super) struct NoLog;

impl Logger for NoLog {
    fn log(&self, _: Record<'_>) {}
}

/// The lowest fee rate there is, for everything but upper bounds.
pub(super) struct Fees;

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, target: ConfirmationTarget) -> u32 {
        match target {
            ConfirmationTarget::MaximumFeeEstimate | ConfirmationTarget::UrgentOnChainSweep => 10_000,
            _ => 253,
        }
    }
}

/// Blocks are made by hand.
pub(super) struct NoBroadcast;

impl BroadcasterInterface for NoBroadcast {
    fn broadcast_transactions(&self, _: &[&Transaction]) {}
}

/// Routes are made by hand.
pub(super) struct NoRouter;

impl Router for NoRouter {
    fn find_route(
        &self,
        _: &PublicKey,
        _: &RouteParameters,
        _: Option<&[&ChannelDetails]>,
        _: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        Err("routes are made by hand here")
    }

    fn create_blinded_payment_paths<T: secp256k1::Signing + secp256k1::Verification>(
        &self,
        _: PublicKey,
        _: Vec<ChannelDetails>,
        _: ReceiveTlvs,
        _: Option<u64>,
        _: &Secp256k1<T>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        Err(())
    }
}

impl MessageRouter for NoRouter {
    fn find_path(&self, _: PublicKey, _: Vec<PublicKey>, _: Destination) -> Result<OnionMessagePath, ()> {
        Err(())
    }

    fn create_blinded_paths<T: secp256k1::Signing + secp256k1::Verification>(
        &self,
        _: PublicKey,
        _: ReceiveAuthKey,
        _: MessageContext,
        _: Vec<MessageForwardNode>,
        _: &Secp256k1<T>,
    ) -> Result<Vec<BlindedMessagePath>, ()> {
        Err(())
    }
}

/// Where an LDK node's monitors go.
pub(super) type Disk = Arc<dyn Persist<InMemorySigner> + Send + Sync>;

/// Nowhere.
pub(super) struct Nowhere;

impl Persist<InMemorySigner> for Nowhere {
    fn persist_new_channel(
        &self,
        _: MonitorName,
        _: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        _: MonitorName,
        _: Option<&ChannelMonitorUpdate>,
        _: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn archive_persisted_channel(&self, _: MonitorName) {}
}

/// The bytes written, and the number of writes.
#[derive(Default)]
pub(super) struct Written {
    pub(super) writes: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// LDK's own file store, which writes a whole monitor at every update, synchronously and synced.
pub(super) struct Files {
    store: FilesystemStore,
    written: Arc<Written>,
}

impl Files {
    pub(super) fn new(directory: PathBuf, written: Arc<Written>) -> Files {
        Files { store: FilesystemStore::new(directory), written }
    }
}

impl KVStoreSync for Files {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
        KVStoreSync::read(&self.store, primary, secondary, key)
    }

    fn write(&self, primary: &str, secondary: &str, key: &str, bytes: Vec<u8>) -> Result<(), io::Error> {
        self.written.writes.fetch_add(1, Ordering::Relaxed);
        self.written.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        KVStoreSync::write(&self.store, primary, secondary, key, bytes)
    }

    fn remove(&self, primary: &str, secondary: &str, key: &str, lazy: bool) -> Result<(), io::Error> {
        KVStoreSync::remove(&self.store, primary, secondary, key, lazy)
    }

    fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
        KVStoreSync::list(&self.store, primary, secondary)
    }
}
