//! A Fulmen node without its runtime, as forwarder.

use bitcoin::{Block, Transaction};
use fulmen::chain::ChainEvent;
use fulmen::node::Node;
use fulmen::proto::forward::{Command, Event, Now, OpenChannel};
use fulmen::wire::units::{BlockHeight, Msat, NodeId};

use super::clock::thread_cpu_ns;
use super::fulmen_end::{node_config, node_seed};
use super::member::{CAPACITY, Forwarder, Member, Usage, funding};

/// A shard in this thread.
pub(super) struct NodeForwarder {
    node: Node,
    outbox: Vec<(NodeId, Vec<u8>)>,
    fundings: Vec<Transaction>,
    cpu_ns: u64,
}

impl NodeForwarder {
    pub(super) fn new() -> NodeForwarder {
        let node = Node::new(node_seed(0), node_config());
        NodeForwarder { node, outbox: Vec::new(), fundings: Vec::new(), cpu_ns: 0 }
    }
}

impl Member for NodeForwarder {
    fn id(&self) -> NodeId {
        self.node.id()
    }

    fn init(&self) -> Vec<u8> {
        self.node.init()
    }

    fn connected(&mut self, peer: NodeId, init: &[u8], _inbound: bool) {
        self.node.connected(peer, init).expect("the end's init suits us");
    }

    fn block(&mut self, block: &Block, height: u32) {
        let event = ChainEvent::Connected { height: BlockHeight(height), block: block.clone().into() };
        self.node.chain_event(&event);
    }

    fn receive(&mut self, peer: NodeId, message: &[u8]) {
        let start = thread_cpu_ns();
        self.node.receive(peer, message).expect("the ends' messages decode");
        self.cpu_ns += thread_cpu_ns() - start;
    }

    fn work(&mut self) -> bool {
        while self.node.has_work() {
            let start = thread_cpu_ns();
            let outbox = self.node.turn(Now { unix_ms: 1_700_000_000_000 });
            self.cpu_ns += thread_cpu_ns() - start;
            assert_eq!(outbox.disconnect, []);
            self.outbox.extend(outbox.send);
            for event in outbox.events {
                match event {
                    Event::FundingNeeded { temporary_channel_id, amount, script, .. } => {
                        let transaction = funding(amount, script);
                        self.fundings.push(transaction.clone());
                        self.node.command(Command::FundingTransaction { temporary_channel_id, transaction });
                    }
                    Event::ForwardFailed { .. }
                    | Event::ChannelFailed { .. }
                    | Event::CommandRefused { .. } => {
                        panic!("Fulmen says {event:?}")
                    }
                    _ => {}
                }
            }
        }
        !self.outbox.is_empty()
    }

    fn poll(&mut self) -> Vec<(NodeId, Vec<u8>)> {
        self.work();
        std::mem::take(&mut self.outbox)
    }
}

impl Forwarder for NodeForwarder {
    fn open(&mut self, peer: NodeId, user_id: u64) {
        let push = Msat(CAPACITY.to_msat().0 / 2);
        self.node.command(Command::OpenChannel(OpenChannel {
            peer,
            user_id,
            capacity: CAPACITY,
            push,
            policy: None,
        }));
    }

    fn fundings(&mut self) -> Vec<Transaction> {
        std::mem::take(&mut self.fundings)
    }

    fn usage(&self) -> Usage {
        Usage { cpu_ns: self.cpu_ns, ..Usage::default() }
    }
}
