//! Queries that would eat everything, clients that are slow or broken, and the end of the server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use arrow_flight::{Action, Ticket};

use super::serve_security::{message, startup};
use super::serve_support::{ANALYST, HASTY, NARROW, Server, shared};

/// Bytes that the process holds.
fn resident(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

const ENDLESS: &str = "select count(*) from generate_series(1, 2000000000) a, generate_series(1, 1000) b";

#[test]
fn rows_time_and_memory_end_where_the_token_says() {
    let error = shared().ask(NARROW, "select * from generate_series(1, 101)").error(422);
    assert!(error.contains("more than the 100 rows of token narrow; add a LIMIT"), "{error}");
    assert_eq!(shared().rows(NARROW, "select * from generate_series(1, 100)").len(), 100);

    let began = Instant::now();
    for statement in
        [ENDLESS, "with recursive t as (select 1 as n union all select n + 1 from t) select count(*) from t"]
    {
        let error = shared().ask(HASTY, statement).error(408);
        assert!(error.contains("longer than the 2 s of token hasty"), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(20));

    let hungry = "select array_length(array_agg(value)) from generate_series(1, 30000000)";
    let error = shared().ask(NARROW, hungry).error(422);
    assert!(error.contains("16 MiB"), "{error}");
}

#[test]
fn a_query_that_would_eat_all_memory_is_stopped() {
    let server = Server::start(&["--memory", "64"]);
    server.rows(ANALYST, "select count(*) from judgments");
    let before = resident(server.process.id());
    for statement in [
        "select array_length(array_agg(value)) from generate_series(1, 1000000000)",
        "select string_agg(repeat('x', 1000), ',') from generate_series(1, 100000000)",
        "select count(*) from (select a.value from generate_series(1, 100000000) a join generate_series(1, 100000000) b on a.value = b.value)",
        "select repeat('x', 2000000000)",
        "select length(repeat(repeat('x', 100000), 100000))",
        "select length(lpad('x', 2000000000, 'y'))",
        "select length(replace(repeat('x', 100000), 'x', repeat('y', 100000)))",
        "select array_length(range(0, 100000000000))",
        "select array_length(array_repeat(1, 10000000000))",
    ] {
        let reply = server.ask(ANALYST, statement);
        assert!([400, 422].contains(&reply.status), "{statement}: {} {}", reply.status, reply.text());
    }
    let grown = resident(server.process.id()) - before;
    assert!(grown < 600 << 20, "{} MiB more", grown >> 20);
    assert_eq!(server.rows(ANALYST, "select 1 as a").len(), 1);
}

#[test]
fn slow_clients_hold_up_nobody() {
    let server = Server::start(&[]);
    let mut open = Vec::new();
    for protocol in ["http", "flight", "postgres"] {
        for i in 0..40 {
            let mut socket = TcpStream::connect(server.address(protocol)).unwrap();
            // Nothing, or the beginning of something.
            let begun: &[u8] =
                [b"".as_slice(), b"POST /query HTTP/1.1\r\nHo", b"PRI * HTTP/2.0\r\n", b"\0\0\0\x10"][i % 4];
            socket.write_all(begun).unwrap();
            open.push(socket);
        }
    }
    // One that asks for much and reads nothing.
    let mut lazy = TcpStream::connect(server.address("http")).unwrap();
    let body = "select repeat('x', 1000) as lazy_one from generate_series(1, 10000000)";
    let request = format!(
        "POST /query HTTP/1.1\r\nHost: salmon\r\nAuthorization: Bearer {HASTY}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    lazy.write_all(request.as_bytes()).unwrap();
    let ended = "select error from query_log where sql like '%lazy_one%' and status = 'failed'";
    let began = Instant::now();
    let error = loop {
        assert_eq!(server.http("GET", "/healthz", &[], "").status, 200);
        if let Some(row) = server.rows(HASTY, ended).first() {
            break row["error"].as_str().unwrap().to_string();
        }
        assert!(began.elapsed() < Duration::from_secs(30), "the query of a client that does not read goes on");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(error.contains("longer than the 2 s"), "{error}");
    // A client that goes away takes its query along.
    let mut gone = TcpStream::connect(server.address("http")).unwrap();
    let request = format!(
        "POST /query HTTP/1.1\r\nHost: salmon\r\nAuthorization: Bearer {ANALYST}\r\nContent-Length: {}\r\n\r\n{ENDLESS}",
        ENDLESS.len()
    );
    gone.write_all(request.as_bytes()).unwrap();
    let running = "select status from query_log where sql like 'select count(*) from generate_series(1, 2000000000)%'";
    while server.rows(ANALYST, running).is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(gone);
    let began = Instant::now();
    while server.rows(ANALYST, running)[0]["status"] != "cancelled" {
        assert!(began.elapsed() < Duration::from_secs(20), "the query of a client that is gone goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
    // The head of a request has ten seconds.
    let mut first = &open[1];
    first.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).unwrap();
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next() as u8).collect()
    }

    /// The bytes with some of them changed, left out or doubled.
    fn damaged(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.below(4) {
            if bytes.is_empty() {
                break;
            }
            let at = self.below(bytes.len());
            match self.below(4) {
                0 => bytes[at] = self.next() as u8,
                1 => bytes.truncate(at),
                2 => bytes.extend_from_within(at..),
                _ => bytes[at] ^= 1 << self.below(8),
            }
        }
        bytes
    }
}

fn send(server: &Server, protocol: &str, bytes: &[u8]) {
    let mut socket = TcpStream::connect(server.address(protocol)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let _ = socket.read(&mut [0; 256]);
}

#[test]
fn a_thousand_malformed_requests_over_http() {
    let (server, mut dice) = (Server::start(&[]), Dice(0x5a1_0001));
    let good = format!(
        "POST /query HTTP/1.1\r\nHost: salmon\r\nAuthorization: Bearer {ANALYST}\r\nContent-Type: application/json\r\n\
         Content-Length: 40\r\n\r\n{{\"sql\": \"select $a\", \"params\": {{\"a\": 1}}}}"
    );
    for i in 0..1000 {
        let bytes = if i % 5 == 0 { dice.bytes(400) } else { dice.damaged(good.clone().into_bytes()) };
        send(&server, "http", &bytes);
    }
    assert_eq!(server.rows(ANALYST, "select 1 as a").len(), 1);
}

#[test]
fn a_thousand_malformed_messages_over_postgres() {
    let (server, mut dice) = (Server::start(&[]), Dice(0x5a1_0002));
    let mut login = startup("analyst");
    login.extend(message(b'p', format!("{ANALYST}\0").as_bytes()));
    let mut asked = message(b'P', b"name\0select $1::bigint\0\0\x01\0\0\0\x14");
    asked.extend(message(b'B', b"portal\0name\0\0\x01\0\x01\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x01\0\x01\0\x01"));
    asked.extend(message(b'D', b"Pportal\0"));
    asked.extend(message(b'E', b"portal\0\0\0\0\0"));
    asked.extend(message(b'S', b""));
    asked.extend(message(b'Q', b"select 1\0"));
    for i in 0..1000 {
        let bytes = match i % 4 {
            0 => dice.bytes(200),
            1 => dice.damaged(login.clone()),
            _ => [login.clone(), dice.damaged(asked.clone())].concat(),
        };
        send(&server, "postgres", &bytes);
    }
    assert_eq!(server.rows(ANALYST, "select 1 as a").len(), 1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = server.postgres("analyst", ANALYST).await.unwrap();
        client.simple_query("select 1").await.unwrap();
    });
}

#[test]
fn a_thousand_malformed_frames_over_flight() {
    let (server, mut dice) = (Server::start(&[]), Dice(0x5a1_0003));
    for i in 0..700 {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        for _ in 0..1 + dice.below(5) {
            let body = dice.bytes(60);
            // A length that is right most of the time, any type, any flags, a small stream.
            let length = if dice.below(4) == 0 { dice.next() as usize % (1 << 24) } else { body.len() };
            bytes.extend([
                (length >> 16) as u8,
                (length >> 8) as u8,
                length as u8,
                dice.below(11) as u8,
                dice.next() as u8,
            ]);
            bytes.extend([0, 0, 0, dice.below(6) as u8]);
            bytes.extend(body);
        }
        send(&server, "flight", if i % 7 == 0 { &bytes[dice.below(bytes.len())..] } else { &bytes });
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = server.flight(ANALYST).await;
        let names = [
            "CreatePreparedStatement",
            "ClosePreparedStatement",
            "CancelQuery",
            "CancelFlightInfo",
            "BeginTransaction",
        ];
        for i in 0..300 {
            let (body, name) = (dice.bytes(80), names[i % names.len()]);
            let mut ticket = tonic::Request::new(Ticket::new(body.clone()));
            ticket.metadata_mut().insert("authorization", format!("Bearer {ANALYST}").parse().unwrap());
            assert!(client.inner_mut().do_get(ticket).await.is_err());
            let mut action = tonic::Request::new(Action::new(name, body));
            action.metadata_mut().insert("authorization", format!("Bearer {ANALYST}").parse().unwrap());
            assert!(client.inner_mut().do_action(action).await.is_err());
        }
        client.execute("select 1".into(), None).await.unwrap();
    });
}

#[test]
fn a_signal_ends_the_server_within_ten_seconds() {
    let mut server = Server::start(&[]);
    let ask = |sql: &'static str| {
        let address = server.address("http");
        std::thread::spawn(move || {
            let mut socket = TcpStream::connect(address).unwrap();
            let request = format!(
                "POST /query HTTP/1.1\r\nHost: salmon\r\nConnection: close\r\nAuthorization: Bearer {ANALYST}\r\nContent-Length: {}\r\n\r\n{sql}",
                sql.len()
            );
            socket.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            let _ = socket.read_to_string(&mut answer);
            answer
        })
    };
    let short = ask("select count(*) as n from generate_series(1, 20000000)");
    let endless = ask(ENDLESS);
    while server.rows(ANALYST, "select * from query_log where status = 'running'").len() < 2 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let began = Instant::now();
    Command::new("kill").args(["-TERM", &server.process.id().to_string()]).status().unwrap();
    let status = server.process.wait().unwrap();
    assert!(status.success(), "{status}: {}", server.stderr());
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
    assert!(short.join().unwrap().contains("20000000"), "a query that ends soon is answered");
    assert!(endless.join().unwrap().contains("cancelled"));
    assert!(TcpStream::connect(server.address("http")).is_err());
}
