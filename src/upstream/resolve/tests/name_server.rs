//! A name server that does what it is told, in this process.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::{Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::{V4, V6};

/// What a scripted name server does with a question.
#[derive(Clone)]
pub(super) enum Say {
    Code(ResponseCode),
    Garbage,
    Records(Vec<Record>),
    Silence,
    /// Truncated over UDP, the records over TCP.
    TooLong(Vec<Record>),
    WrongId(Vec<Record>),
}

/// A name server on a free port, until it is dropped. Names that it does not know exist without records.
pub(super) struct NameServer {
    pub(super) address: SocketAddr,
    script: Arc<Script>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Script {
    asked: Mutex<Vec<String>>,
    says: Mutex<HashMap<(String, RecordType), Say>>,
}

impl NameServer {
    pub(super) async fn start() -> Self {
        let script = Arc::new(Script::default());
        let mut tasks = JoinSet::new();
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let address = tcp.local_addr().unwrap();
        let own = Arc::clone(&script);
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, peer) = udp.recv_from(&mut buffer).await.unwrap();
                if let Some(answer) = own.answer(&buffer[..length], true) {
                    udp.send_to(&answer, peer).await.unwrap();
                }
            }
        });
        let own = Arc::clone(&script);
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let _ = own.serve(&mut stream).await;
            }
        });
        Self {
            address,
            script,
            _tasks: tasks,
        }
    }

    pub(super) fn says(&self, name: &str, kind: RecordType, say: Say) {
        self.script
            .says
            .lock()
            .unwrap()
            .insert((name.to_owned(), kind), say);
    }

    /// Both kinds of question about a name.
    pub(super) fn says_always(&self, name: &str, say: &Say) {
        self.says(name, V4, say.clone());
        self.says(name, V6, say.clone());
    }

    /// Whether a question has come since the last time.
    pub(super) fn has_been_asked(&self) -> bool {
        !self.script.asked.lock().unwrap().is_empty()
    }

    /// The questions since the last time, in alphabetical order.
    pub(super) fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.script.asked.lock().unwrap());
        asked.sort();
        asked
    }
}

impl Script {
    async fn serve(&self, stream: &mut TcpStream) -> io::Result<()> {
        loop {
            let mut question = vec![0; stream.read_u16().await?.into()];
            stream.read_exact(&mut question).await?;
            if let Some(answer) = self.answer(&question, false) {
                stream.write_u16(answer.len().try_into().unwrap()).await?;
                stream.write_all(&answer).await?;
            }
        }
    }

    fn answer(&self, question: &[u8], is_udp: bool) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).unwrap();
        let query = question.queries[0].clone();
        let key = (query.name().to_string(), query.query_type());
        self.asked.lock().unwrap().push(format!("{} {}", key.0, key.1));
        let say = self
            .says
            .lock()
            .unwrap()
            .get(&key)
            .cloned()
            .unwrap_or(Say::Records(Vec::new()));

        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        answer.add_query(query);
        match say {
            Say::Code(code) => answer.metadata.response_code = code,
            Say::Garbage => {
                let mut bytes = question.metadata.id.to_be_bytes().to_vec();
                bytes.extend([0xff; 40]);
                return Some(bytes);
            }
            Say::Records(records) => drop(answer.add_answers(records).metadata),
            Say::Silence => return None,
            Say::TooLong(_) if is_udp => answer.metadata.truncation = true,
            Say::TooLong(records) => drop(answer.add_answers(records).metadata),
            Say::WrongId(records) => answer.add_answers(records).metadata.id ^= 1,
        }
        Some(answer.to_vec().unwrap())
    }
}
