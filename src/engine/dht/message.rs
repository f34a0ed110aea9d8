//! The messages of nodes: queries, answers and errors, each one datagram (BEP 5, *KRPC Protocol*).
//!
//! ```text
//! d 1:a d 2:id20:.. 9:info_hash20:.. 4:want l 2:n4 e e 1:q 9:get_peers 1:t 4:.... 1:y 1:q e
//! d 2:ip 6:.. 1:r d 2:id20:.. 5:nodes 208:.. 5:token 8:.. 6:values l 6:.. e e 1:t .. 1:y 1:r e
//! d 1:e l i203e .. e 1:t .. 1:y 1:e e
//! ```
//!
//! [`parse`] looks at a datagram where it stands and copies nothing. What is no message is `None`;
//! a query that is one by its look and asks for nothing we know is answered with the error that
//! fits. Whatever is written has its keys sorted, as bencoding wants.

use super::endpoint::{Endpoint, endpoint_bytes};
use super::id::NodeId;
use crate::engine::announce::Family;
use crate::engine::bencode::{Items, Sink, Value, Writer};

/// A datagram that makes sense.
#[derive(Clone, Debug)]
pub enum Message<'a> {
    /// Somebody asks something.
    Query(Query<'a>),
    /// Somebody asks something that is not understood.
    Unfit(&'a [u8], Fault),
    /// Somebody answers a question of ours.
    Answer(Answer<'a>),
    /// Somebody refuses one.
    Refusal(&'a [u8]),
}

/// A question to us.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// To be repeated in the answer.
    pub transaction: &'a [u8],
    /// Who asks.
    pub asker: NodeId,
    /// It answers no questions itself (BEP 43).
    pub read_only: bool,
    /// What is asked.
    pub ask: Ask<'a>,
}

/// What one node asks of another.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// Whether it is there.
    Ping,
    /// The nodes it knows that are closest to a name.
    FindNode(NodeId, Want),
    /// The peers of a torrent, and the same for its info-hash.
    GetPeers(NodeId, Want),
    /// To be taken note of as a peer.
    AnnouncePeer {
        /// Of which torrent.
        info_hash: NodeId,
        /// At which port; nothing for the one the datagram comes from.
        port: Option<u16>,
        /// What the node gave with its last answer.
        token: &'a [u8],
    },
}

/// Families of nodes that are asked for (BEP 32).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// `nodes`.
    pub v4: bool,
    /// `nodes6`.
    pub v6: bool,
}

impl Want {
    /// What is meant when nothing is said.
    pub fn only(family: Family) -> Want {
        Want { v4: family == Family::V4, v6: family == Family::V6 }
    }

    /// Both families.
    pub const BOTH: Want = Want { v4: true, v6: true };

    /// Whether nodes of a family are wanted.
    pub fn has(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// An answer to a question of ours.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    /// What we put into the question.
    pub transaction: &'a [u8],
    /// Who answers.
    pub id: NodeId,
    /// What announcing there takes.
    pub token: Option<&'a [u8]>,
    /// Where we are, as it is seen from there (BEP 42).
    pub seen_at: Option<Endpoint>,
    nodes: &'a [u8],
    nodes6: &'a [u8],
    values: Items<'a>,
}

impl<'a> Answer<'a> {
    /// The nodes of a family it names.
    pub fn nodes(&self, family: Family) -> impl Iterator<Item = (NodeId, Endpoint)> + use<'a> {
        let packed = match family {
            Family::V4 => self.nodes,
            Family::V6 => self.nodes6,
        };
        packed.chunks_exact(20 + endpoint_bytes(family)).filter_map(move |node| {
            let (id, endpoint) = node.split_first_chunk()?;
            let endpoint = Endpoint::parse(endpoint)?;
            (endpoint.family() == family).then_some((NodeId(*id), endpoint))
        })
    }

    /// The peers it knows.
    pub fn peers(&self) -> impl Iterator<Item = Endpoint> + use<'a> {
        self.values.clone().filter_map(|value| Endpoint::parse(value.bytes()?))
    }
}

/// Why a query is refused (BEP 5, *Errors*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Something is missing or out of bounds.
    Arguments,
    /// The token is none of ours, or an old one.
    Token,
    /// There is no such question.
    Method,
}

impl Fault {
    fn code_and_words(self) -> (u64, &'static [u8]) {
        match self {
            Fault::Arguments => (203, b"bad arguments"),
            Fault::Token => (203, b"bad token"),
            Fault::Method => (204, b"method unknown"),
        }
    }
}

/// Reads a datagram that came over `family`.
///
/// # Work
/// A few passes over the datagram.
pub fn parse(bytes: &[u8], family: Family) -> Option<Message<'_>> {
    let message = Value::parse(bytes).ok()?;
    let transaction = message.find(b"t")?.bytes()?;
    if transaction.len() > TRANSACTION_BYTES_MAX {
        return None;
    }
    match message.find(b"y")?.bytes()? {
        b"q" => Some(match parse_query(message, transaction, family) {
            Ok(query) => Message::Query(query),
            Err(fault) => Message::Unfit(transaction, fault),
        }),
        b"r" => parse_answer(message, transaction).map(Message::Answer),
        b"e" => Some(Message::Refusal(transaction)),
        _ => None,
    }
}

fn parse_query<'a>(
    message: Value<'a>,
    transaction: &'a [u8],
    family: Family,
) -> Result<Query<'a>, Fault> {
    let method = message.find(b"q").and_then(|method| method.bytes()).ok_or(Fault::Arguments)?;
    let arguments = message.find(b"a").ok_or(Fault::Arguments)?;
    let name = |key| find_id(arguments, key).ok_or(Fault::Arguments);
    let asker = name(b"id")?;
    let ask = match method {
        b"ping" => Ask::Ping,
        b"find_node" => Ask::FindNode(name(b"target")?, parse_want(arguments, family)),
        b"get_peers" => Ask::GetPeers(name(b"info_hash")?, parse_want(arguments, family)),
        b"announce_peer" => {
            let number = |key| arguments.find(key).and_then(|number| number.integer());
            let implied = number(b"implied_port").is_some_and(|implied| implied != 0);
            let port = number(b"port").and_then(|port| u16::try_from(port).ok());
            let port = if implied { None } else { Some(port.ok_or(Fault::Arguments)?) };
            let token = arguments.find(b"token").and_then(|token| token.bytes());
            let token = token.ok_or(Fault::Arguments)?;
            Ask::AnnouncePeer { info_hash: name(b"info_hash")?, port, token }
        }
        _ => return Err(Fault::Method),
    };
    let read_only = message.find(b"ro").and_then(|flag| flag.integer()) == Some(1);
    Ok(Query { transaction, asker, read_only, ask })
}

fn parse_want(arguments: Value<'_>, family: Family) -> Want {
    let Some(list) = arguments.find(b"want") else { return Want::only(family) };
    let has = |name: &[u8]| list.items().any(|item| item.bytes() == Some(name));
    Want { v4: has(b"n4"), v6: has(b"n6") }
}

fn parse_answer<'a>(message: Value<'a>, transaction: &'a [u8]) -> Option<Answer<'a>> {
    let content = message.find(b"r")?;
    let packed = |key: &[u8]| content.find(key).and_then(|nodes| nodes.bytes()).unwrap_or_default();
    let empty = Value::parse(b"le").ok()?;
    Some(Answer {
        transaction,
        id: find_id(content, b"id")?,
        token: content.find(b"token").and_then(|token| token.bytes()),
        seen_at: message.find(b"ip").and_then(|ip| Endpoint::parse(ip.bytes()?)),
        nodes: packed(b"nodes"),
        nodes6: packed(b"nodes6"),
        values: content.find(b"values").unwrap_or(empty).items(),
    })
}

fn find_id(dictionary: Value<'_>, key: &[u8]) -> Option<NodeId> {
    dictionary.find(key)?.bytes()?.try_into().ok().map(NodeId)
}

/// Writes a question.
pub fn write_query<S: Sink>(
    sink: &mut S,
    transaction: [u8; 4],
    own: &NodeId,
    read_only: bool,
    ask: &Ask<'_>,
) -> Result<(), S::Error> {
    let mut writer = Writer::new(sink);
    writer.dictionary()?.bytes(b"a")?.dictionary()?.bytes(b"id")?.bytes(&own.0)?;
    let method: &[u8] = match ask {
        Ask::Ping => b"ping",
        Ask::FindNode(target, want) => {
            writer.bytes(b"target")?.bytes(&target.0)?;
            write_want(&mut writer, *want)?;
            b"find_node"
        }
        Ask::GetPeers(info_hash, want) => {
            writer.bytes(b"info_hash")?.bytes(&info_hash.0)?;
            write_want(&mut writer, *want)?;
            b"get_peers"
        }
        Ask::AnnouncePeer { info_hash, port, token } => {
            writer.bytes(b"implied_port")?.integer(u64::from(port.is_none()))?;
            writer.bytes(b"info_hash")?.bytes(&info_hash.0)?;
            writer.bytes(b"port")?.integer(port.unwrap_or(1).into())?;
            writer.bytes(b"token")?.bytes(token)?;
            b"announce_peer"
        }
    };
    writer.end()?.bytes(b"q")?.bytes(method)?;
    if read_only {
        writer.bytes(b"ro")?.integer(1)?;
    }
    close(&mut writer, &transaction, b"q")
}

/// Nothing is said when one family is wanted: the answer holds the datagram's own then.
fn write_want<S: Sink>(writer: &mut Writer<'_, S>, want: Want) -> Result<(), S::Error> {
    if want == Want::BOTH {
        writer.bytes(b"want")?.list()?.bytes(b"n4")?.bytes(b"n6")?.end()?;
    }
    Ok(())
}

/// What an answer holds, in the order it is written.
pub struct Content<'a> {
    /// Who we are.
    pub own: &'a NodeId,
    /// Nodes of IPv4, if that was asked for.
    pub nodes: Option<&'a [(NodeId, Endpoint)]>,
    /// Nodes of IPv6, if that was asked for.
    pub nodes6: Option<&'a [(NodeId, Endpoint)]>,
    /// What announcing here takes.
    pub token: Option<&'a [u8]>,
    /// Peers.
    pub values: &'a [Endpoint],
}

/// Writes an answer to whoever asked from `to`.
pub fn write_answer<S: Sink>(
    sink: &mut S,
    transaction: &[u8],
    to: Endpoint,
    content: &Content<'_>,
) -> Result<(), S::Error> {
    let mut writer = Writer::new(sink);
    write_seen_at(writer.dictionary()?, to)?;
    writer.bytes(b"r")?.dictionary()?.bytes(b"id")?.bytes(&content.own.0)?;
    let keys: [(&[u8], _, _); 2] =
        [(b"nodes", content.nodes, Family::V4), (b"nodes6", content.nodes6, Family::V6)];
    for (key, nodes, family) in keys {
        let Some(nodes) = nodes else { continue };
        let length = nodes.len() * (20 + endpoint_bytes(family));
        writer.bytes(key)?.string_head(length as u64)?;
        for (id, endpoint) in nodes {
            writer.raw(&id.0)?;
            write_endpoint(&mut writer, endpoint)?;
        }
    }
    if let Some(token) = content.token {
        writer.bytes(b"token")?.bytes(token)?;
    }
    if !content.values.is_empty() {
        writer.bytes(b"values")?.list()?;
        for peer in content.values {
            writer.string_head(endpoint_bytes(peer.family()) as u64)?;
            write_endpoint(&mut writer, peer)?;
        }
        writer.end()?;
    }
    writer.end()?;
    close(&mut writer, transaction, b"r")
}

/// Writes a refusal to whoever asked from `to`.
pub fn write_refusal<S: Sink>(
    sink: &mut S,
    transaction: &[u8],
    to: Endpoint,
    fault: Fault,
) -> Result<(), S::Error> {
    let (code, words) = fault.code_and_words();
    let mut writer = Writer::new(sink);
    writer.dictionary()?.bytes(b"e")?.list()?.integer(code)?.bytes(words)?.end()?;
    write_seen_at(&mut writer, to)?;
    close(&mut writer, transaction, b"e")
}

/// Tells whoever asked where it is seen (BEP 42, *Bootstrapping*).
fn write_seen_at<S: Sink>(writer: &mut Writer<'_, S>, to: Endpoint) -> Result<(), S::Error> {
    writer.bytes(b"ip")?.string_head(endpoint_bytes(to.family()) as u64)?;
    write_endpoint(writer, &to)
}

fn write_endpoint<S: Sink>(
    writer: &mut Writer<'_, S>,
    endpoint: &Endpoint,
) -> Result<(), S::Error> {
    writer.raw(endpoint.ip_bytes())?.raw(&endpoint.address().port().to_be_bytes()).map(|_| ())
}

/// The tail of every message: transaction, program, kind.
fn close<S: Sink>(
    writer: &mut Writer<'_, S>,
    transaction: &[u8],
    kind: &[u8],
) -> Result<(), S::Error> {
    writer.bytes(b"t")?.bytes(transaction)?.bytes(b"v")?.bytes(VERSION)?;
    writer.bytes(b"y")?.bytes(kind)?.end().map(|_| ())
}

/// An answer without nodes and values is no longer than this, whatever the transaction.
pub const FRAME_BYTES_MAX: usize =
    "d2:ip18:1:rd2:id20:5:nodes3:3046:nodes63:3045:token8:6:valuesle1:t16:1:v4:1:y1:ree".len()
        + 18
        + 20
        + super::chance::TOKEN_BYTES
        + TRANSACTION_BYTES_MAX
        + VERSION.len();

/// A longer transaction is not answered: two to four bytes are usual.
const TRANSACTION_BYTES_MAX: usize = 16;

/// BEP 20's letters and a version (BEP 5, *KRPC Protocol*).
const VERSION: &[u8] = b"PN\x01\x00";

#[cfg(test)]
mod tests {
    use super::*;

    fn written<E: core::fmt::Debug>(
        write: impl FnOnce(&mut heapless::Vec<u8, 1024>) -> Result<(), E>,
    ) -> heapless::Vec<u8, 1024> {
        let mut bytes = heapless::Vec::new();
        write(&mut bytes).unwrap();
        bytes
    }

    const OWN: NodeId = NodeId(*b"abcdefghij0123456789");
    const TARGET: NodeId = NodeId(*b"mnopqrstuvwxyz123456");

    #[test]
    fn queries_are_as_bep_5_draws_them() {
        let find = Ask::FindNode(TARGET, Want::only(Family::V4));
        let bytes = written(|sink| write_query(sink, *b"aaaa", &OWN, false, &find));
        let expected = b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e\
            1:q9:find_node1:t4:aaaa1:v4:PN\x01\x001:y1:qe";
        assert_eq!(bytes[..], expected[..]);
        let announce =
            Ask::AnnouncePeer { info_hash: TARGET, port: Some(6881), token: b"aoeusnth" };
        let bytes = written(|sink| write_query(sink, *b"aaaa", &OWN, true, &announce));
        let expected = b"d1:ad2:id20:abcdefghij012345678912:implied_porti0e9:info_hash20:\
            mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer2:roi1e\
            1:t4:aaaa1:v4:PN\x01\x001:y1:qe";
        assert_eq!(bytes[..], expected[..]);
        let Some(Message::Query(query)) = parse(&bytes, Family::V4) else { panic!("no query") };
        assert!(query.read_only && query.asker == OWN);
        let Ask::AnnouncePeer { info_hash, port, token } = query.ask else { panic!("another") };
        assert_eq!((info_hash, port, token), (TARGET, Some(6881), &b"aoeusnth"[..]));
    }

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let [node, peer] =
            ["192.0.2.1:6881", "192.0.2.9:80"].map(|text| Endpoint::of(text.parse().unwrap()));
        let node6 = Endpoint::of("[2001:db8::1]:7".parse().unwrap());
        let content = Content {
            own: &OWN,
            nodes: Some(&[(TARGET, node)]),
            nodes6: Some(&[(OWN, node6)]),
            token: Some(b"12345678"),
            values: &[peer],
        };
        let bytes = written(|sink| write_answer(sink, b"x", peer, &content));
        let parsed = parse(&bytes, Family::V4);
        let Some(Message::Answer(answer)) = parsed else { panic!("no answer") };
        assert_eq!((answer.id, answer.transaction), (OWN, &b"x"[..]));
        assert_eq!(answer.token, Some(&b"12345678"[..]));
        assert_eq!(answer.seen_at, Some(peer));
        assert!(answer.nodes(Family::V4).eq([(TARGET, node)]));
        assert!(answer.nodes(Family::V6).eq([(OWN, node6)]));
        assert!(answer.peers().eq([peer]));
        let most = FRAME_BYTES_MAX + 26 + 38 + 8;
        assert!(bytes.len() <= most, "{} bytes", bytes.len());
    }

    #[test]
    fn what_is_asked_for_is_what_was_said_or_the_own_family() {
        for (said, family, want) in [
            ("", Family::V4, Want::only(Family::V4)),
            ("", Family::V6, Want::only(Family::V6)),
            ("4:wantl2:n6e", Family::V4, Want::only(Family::V6)),
            ("4:wantl2:n42:n62:n9e", Family::V4, Want::BOTH),
        ] {
            let text = written(|sink| {
                sink.put(b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456")?;
                sink.put(said.as_bytes())?;
                sink.put(b"e1:q9:get_peers1:t2:aa1:y1:qe")
            });
            let Some(Message::Query(query)) = parse(&text, family) else { panic!("no query") };
            assert!(matches!(query.ask, Ask::GetPeers(TARGET, wanted) if wanted == want));
        }
    }

    #[test]
    fn queries_that_make_no_sense_are_told_so() {
        let id = "2:id20:abcdefghij0123456789";
        for (text, fault) in [
            ("d1:ade1:q4:ping1:t1:x1:y1:qe", Some(Fault::Arguments)),
            ("d1:ad2:id2:abe1:q4:ping1:t1:x1:y1:qe", Some(Fault::Arguments)),
            ("d1:q4:ping1:t1:x1:y1:qe", Some(Fault::Arguments)),
            ("d1:ad#e1:q9:find_node1:t1:x1:y1:qe", Some(Fault::Arguments)),
            ("d1:ad#e1:q13:announce_peer1:t1:x1:y1:qe", Some(Fault::Arguments)),
            ("d1:ad#e1:q4:vote1:t1:x1:y1:qe", Some(Fault::Method)),
            ("d1:ad#e1:q4:ping1:t17:xxxxxxxxxxxxxxxxx1:y1:qe", None),
            ("d1:ad#e1:q4:ping1:y1:qe", None),
            ("d1:rd#e1:t1:x1:y1:ze", None),
            ("d1:rde1:t1:x1:y1:re", None),
            ("le", None),
        ] {
            let text = text.replace('#', id);
            let found = match parse(text.as_bytes(), Family::V4) {
                Some(Message::Unfit(b"x", fault)) => Some(fault),
                None => None,
                other => panic!("{text}: {other:?}"),
            };
            assert_eq!(found, fault, "{text}");
        }
    }
}
