//! tokio-postgres: every query is prepared, and queries of one client are pipelined.
// SPDX-License-Identifier: Apache-2.0
use futures_util::{future, pin_mut, SinkExt, StreamExt, TryStreamExt};
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use std::collections::{HashMap, HashSet};
use std::env;
use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, Error, IsolationLevel, Row, SimpleQueryMessage, Statement};

// ---- TLS; the crate that does this is not in Debian ----

#[derive(Clone)]
struct Tls(SslConnector);

struct TlsOne(openssl::ssl::Ssl);

struct Stream<S>(tokio_openssl::SslStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tokio_postgres::tls::TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for TlsOne {
    type Stream = Stream<S>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Stream<S>, Self::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let mut s = tokio_openssl::SslStream::new(self.0, stream)?;
            Pin::new(&mut s).connect().await?;
            Ok(Stream(s))
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Stream<S>;
    type TlsConnect = TlsOne;
    type Error = openssl::error::ErrorStack;

    fn make_tls_connect(&mut self, domain: &str) -> Result<TlsOne, Self::Error> {
        Ok(TlsOne(self.0.configure()?.into_ssl(domain)?))
    }
}

fn tls() -> Tls {
    let mut b = SslConnector::builder(SslMethod::tls()).unwrap();
    b.set_ca_file(var("PGSSLROOTCERT")).unwrap();
    b.set_verify(SslVerifyMode::PEER);
    Tls(b.build())
}

// ---- the driver ----

struct Conn {
    client: Client,
    messages: futures_channel::mpsc::UnboundedReceiver<AsyncMessage>,
    prepared: HashMap<String, Statement>,
    /// What reads and writes; without it the connection is gone.
    task: tokio::task::JoinHandle<()>,
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

async fn open(options: &[(String, String)]) -> Result<Conn, Error> {
    let mut c = Config::new();
    c.host(&var("PGHOST")).port(var("PGPORT").parse().unwrap()).user(&var("PGUSER")).password(var("PGPASSWORD"));
    c.dbname(&var("PGDATABASE")).ssl_mode(tokio_postgres::config::SslMode::Require).connect_timeout(Duration::from_secs(20));
    for (k, v) in options {
        match k.as_str() {
            "options" => c.options(v),
            "application_name" => c.application_name(v),
            _ => panic!("no such option: {k}"),
        };
    }
    let (client, mut connection) = c.connect(tls()).await?;
    let (tx, messages) = futures_channel::mpsc::unbounded();
    let task = tokio::spawn(async move {
        let mut stream = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(m)) = stream.next().await {
            let _ = tx.unbounded_send(m);
        }
    });
    Ok(Conn { client, messages, prepared: HashMap::new(), task })
}

/// The driver numbers its statements over all connections.
fn unnumbered(message: &str) -> String {
    if message.starts_with("prepared statement \"s") {
        message.replace(|c: char| c.is_ascii_digit(), "")
    } else {
        message.to_string()
    }
}

fn error(e: &Error) -> String {
    match e.as_db_error() {
        Some(d) => format!("!{} {} {} {} {}", d.severity(), d.code().code(), unnumbered(d.message()), d.detail().unwrap_or(""), d.hint().unwrap_or("")),
        None => format!("!{e}"),
    }
}

fn tried(r: Result<String, Error>) -> String {
    r.unwrap_or_else(|e| error(&e))
}

async fn run(c: &Conn, sql: &str) -> Result<String, Error> {
    let mut out = String::new();
    for m in c.client.simple_query(sql).await? {
        match m {
            SimpleQueryMessage::Row(r) => {
                out += "[";
                for i in 0..r.len() {
                    let name = if i > 0 { "," } else { "" };
                    write!(out, "{name}{}={}", r.columns()[i].name(), r.get(i).unwrap_or("NULL")).unwrap();
                }
                out += "]";
            }
            SimpleQueryMessage::CommandComplete(n) => write!(out, "{{{n}}}").unwrap(),
            _ => out += "?",
        }
    }
    Ok(out)
}

fn rows(rows: &[Row]) -> String {
    let mut out = String::new();
    for r in rows {
        out += "[";
        for (i, c) in r.columns().iter().enumerate() {
            write!(out, "{}{}:{}=", if i > 0 { "," } else { "" }, c.name(), c.type_().name()).unwrap();
            let value = match *c.type_() {
                Type::INT4 => r.try_get::<_, Option<i32>>(i).map(|v| v.map(|v| v.to_string())),
                Type::INT8 => r.try_get::<_, Option<i64>>(i).map(|v| v.map(|v| v.to_string())),
                Type::BOOL => r.try_get::<_, Option<bool>>(i).map(|v| v.map(|v| v.to_string())),
                Type::FLOAT8 => r.try_get::<_, Option<f64>>(i).map(|v| v.map(|v| v.to_string())),
                Type::BYTEA => r.try_get::<_, Option<Vec<u8>>>(i).map(|v| v.map(|v| format!("{v:?}"))),
                Type::INT4_ARRAY => r.try_get::<_, Option<Vec<Option<i32>>>>(i).map(|v| v.map(|v| format!("{v:?}"))),
                Type::TEXT_ARRAY => r.try_get::<_, Option<Vec<String>>>(i).map(|v| v.map(|v| format!("{v:?}"))),
                _ => r.try_get::<_, Option<String>>(i),
            };
            out += &match value {
                Ok(v) => v.unwrap_or_else(|| "NULL".into()),
                Err(e) => e.to_string(),
            };
        }
        out += "]";
    }
    out
}

async fn arg(c: &mut Conn, sql: &str, values: &[String]) -> Result<String, Error> {
    if !c.prepared.contains_key(sql) {
        let s = c.client.prepare(sql).await?;
        c.prepared.insert(sql.to_string(), s);
    }
    let params: Vec<&(dyn ToSql + Sync)> = values.iter().map(|v| v as &(dyn ToSql + Sync)).collect();
    Ok(rows(&c.client.query(&c.prepared[sql], &params).await?))
}

// ---- common.cases ----

fn pairs(text: &str) -> Vec<(String, String)> {
    text.split(";;").map(str::trim).filter(|p| !p.is_empty()).filter_map(|p| p.split_once('='))
        .map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

async fn steps(lines: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut open_ones: HashMap<String, Conn> = HashMap::new();
    for line in lines {
        let (mut verb, mut rest) = line.split_once(' ').unwrap();
        let mut times = 1;
        if verb == "times" {
            let (n, more) = rest.split_once(' ').unwrap();
            times = n.parse().unwrap();
            (verb, rest) = more.split_once(' ').unwrap();
        }
        let (name, mut text) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut values = Vec::new();
        if verb == "arg" {
            let (sql, tail) = text.split_once(" <-").unwrap();
            text = sql;
            values = tail.split('|').map(|v| v.trim().to_string()).collect();
        }
        let mut last: Option<String> = None;
        let mut count = 0;
        for i in 0..=times {
            let result = if i == times {
                None
            } else if verb == "open" {
                Some(match open(&pairs(text)).await {
                    Ok(c) => {
                        open_ones.insert(name.to_string(), c);
                        "+".to_string()
                    }
                    Err(e) => error(&e),
                })
            } else if verb == "close" {
                Some(if open_ones.remove(name).is_some() { "-" } else { "(not connected)" }.to_string())
            } else if let Some(c) = open_ones.get_mut(name) {
                Some(tried(if verb == "run" { run(c, text).await } else { arg(c, text, &values).await }))
            } else {
                Some("(not connected)".to_string())
            };
            if result.is_some() && result == last {
                count += 1;
                continue;
            }
            if let Some(l) = last {
                out.push(if count > 1 { format!("{l} x{count}") } else { l });
            }
            last = result;
            count = 1;
        }
    }
    out
}

// ---- the driver's own ----

type Out = Result<Vec<String>, Error>;

const OWN: &[(&str, bool)] = &[
    ("types round trip", false), ("prepared statements", false), ("300 prepared statements", false), ("pipelined queries", false),
    ("pipelined queries with errors", false), ("transactions of the driver", false), ("isolation levels", false), ("portals with a row limit", false),
    ("copy", false), ("copy that is dropped", false), ("listen and notify", true), ("cancel", false), ("several statements in one query", false),
    ("notices", false), ("large value both ways", false), ("stream that is dropped", false), ("composite types are looked up", false),
    ("like a program: new statements, autocommit on", false), ("like a program: new statements, autocommit off", false),
    ("a copy that fails while its rows are sent", false), ("a client that leaves in the middle", false),
];

async fn one(name: &str) -> Out {
    let mut c = open(&[]).await?;
    let mut out = Vec::new();
    match name {
        "types round trip" => {
            let r = c.client.query("SELECT $1::text, $2::int8, $3::bytea, $4::bool, $5::float8, $6::text, $7::int[], $8::text[]",
                &[&"it's ü 世界😀", &(1i64 << 60), &&[0u8, 1, 255][..], &true, &1.25f64, &None::<String>, &vec![Some(1i32), None], &vec!["a", "b,c", "d\"e"]]).await?;
            out.push(rows(&r));
        }
        "prepared statements" => {
            let s = c.client.prepare_typed("SELECT $1 + 1 AS n", &[Type::INT4]).await?;
            out.push(format!("{:?} {:?}", s.params(), s.columns().iter().map(|c| c.name()).collect::<Vec<_>>()));
            for i in 0..8 {
                out.push(rows(&c.client.query(&s, &[&i]).await?));
            }
            out.push(tried(c.client.prepare("SELECT nothing").await.map(|_| "?".into())));
            let d = c.client.prepare("SELECT 10 / $1::int").await?;
            for v in [1i32, 0, 5] {
                out.push(tried(c.client.query(&d, &[&v]).await.map(|r| rows(&r))));
            }
            drop(d);
            out.push(run(&c, "DEALLOCATE ALL").await?);
            out.push(tried(c.client.query(&s, &[&1i32]).await.map(|r| rows(&r))));
            out.push(run(&c, "SELECT 'on'").await?);
        }
        "300 prepared statements" => {
            let mut all = Vec::new();
            for i in 0..300 {
                all.push(c.client.prepare(&format!("SELECT {i} + $1::int")).await?);
            }
            let mut sum = 0i64;
            for _ in 0..2 {
                for s in &all {
                    sum += i64::from(c.client.query_one(s, &[&1i32]).await?.get::<_, i32>(0));
                }
            }
            out.push(sum.to_string());
        }
        "pipelined queries" => {
            let s = c.client.prepare("SELECT $1::int").await?;
            let numbers: Vec<i32> = (0..500).collect();
            let params: Vec<[&(dyn ToSql + Sync); 1]> = numbers.iter().map(|n| [n as &(dyn ToSql + Sync)]).collect();
            let all = future::try_join_all(params.iter().map(|p| c.client.query_one(&s, p))).await?;
            out.push(all.iter().map(|r| r.get::<_, i32>(0)).sum::<i32>().to_string());
        }
        "pipelined queries with errors" => {
            let s = c.client.prepare("SELECT 100 / $1::int").await?;
            let numbers: Vec<i32> = (0..30).map(|n| n % 3).collect();
            let params: Vec<[&(dyn ToSql + Sync); 1]> = numbers.iter().map(|n| [n as &(dyn ToSql + Sync)]).collect();
            let all = future::join_all(params.iter().map(|p| c.client.query_one(&s, p))).await;
            out.extend(all.into_iter().map(|r| tried(r.map(|r| r.get::<_, i32>(0).to_string()))));
        }
        "transactions of the driver" => {
            c.client.batch_execute("DROP TABLE IF EXISTS t_tokio; CREATE TABLE t_tokio (id int PRIMARY KEY)").await?;
            let mut t = c.client.transaction().await?;
            t.execute("INSERT INTO t_tokio VALUES ($1)", &[&1i32]).await?;
            let s = t.savepoint("sp").await?;
            out.push(tried(s.execute("INSERT INTO t_tokio VALUES ($1)", &[&1i32]).await.map(|n| n.to_string())));
            s.rollback().await?;
            t.execute("INSERT INTO t_tokio VALUES ($1)", &[&2i32]).await?;
            t.commit().await?;
            {
                let t = c.client.transaction().await?;
                t.execute("INSERT INTO t_tokio VALUES (3)", &[]).await?;
                // dropped: rolled back behind the driver's back
            }
            out.push(run(&c, "SELECT count(*) FROM t_tokio").await?);
            c.client.batch_execute("DROP TABLE t_tokio").await?;
        }
        "isolation levels" => {
            for level in [IsolationLevel::Serializable, IsolationLevel::RepeatableRead, IsolationLevel::ReadCommitted] {
                let t = c.client.build_transaction().isolation_level(level).read_only(true).deferrable(true).start().await?;
                out.push(rows(&t.query("SHOW transaction_isolation", &[]).await?));
                out.push(tried(t.batch_execute("CREATE TABLE never (id int)").await.map(|_| "?".into())));
                t.rollback().await?;
            }
        }
        "portals with a row limit" => {
            let t = c.client.transaction().await?;
            let a = t.bind("SELECT g FROM generate_series(1, 50) g", &[]).await?;
            let b = t.bind("SELECT g FROM generate_series(101, $1::int) g", &[&150i32]).await?;
            for _ in 0..4 {
                out.push(rows(&t.query_portal(&a, 3).await?));
                out.push(rows(&t.query_portal(&b, 2).await?));
            }
            out.push(t.query_portal(&a, 0).await?.len().to_string());
            drop(a);
            drop(b);
            t.commit().await?;
        }
        "copy" => {
            c.client.batch_execute("DROP TABLE IF EXISTS t_tokiocopy; CREATE TABLE t_tokiocopy (id int, v text)").await?;
            let sink = c.client.copy_in("COPY t_tokiocopy FROM STDIN").await?;
            pin_mut!(sink);
            for i in 0..5000 {
                sink.send(io::Cursor::new(format!("{i}\trow {i}\n").into_bytes())).await?;
            }
            out.push(sink.finish().await?.to_string());
            let size = c.client.copy_out("COPY t_tokiocopy TO STDOUT").await?.try_fold(0, |n, b| async move { Ok(n + b.len()) }).await?;
            out.push(size.to_string());
            let bad = c.client.copy_in("COPY t_tokiocopy FROM STDIN").await?;
            pin_mut!(bad);
            bad.send(io::Cursor::new(b"no number\tx\n".to_vec())).await?;
            out.push(tried(bad.finish().await.map(|n| n.to_string())));
            out.push(run(&c, "SELECT count(*) FROM t_tokiocopy").await?);
            c.client.batch_execute("DROP TABLE t_tokiocopy").await?;
        }
        "copy that is dropped" => {
            c.client.batch_execute("CREATE TEMP TABLE tcd (id int)").await?;
            {
                let sink = c.client.copy_in("COPY tcd FROM STDIN").await?;
                pin_mut!(sink);
                sink.send(io::Cursor::new(b"1\n".to_vec())).await?;
            }
            out.push(run(&c, "SELECT count(*) FROM tcd").await?);
        }
        "listen and notify" => {
            let b = open(&[]).await?;
            c.client.batch_execute("LISTEN tokiochan").await?;
            b.client.batch_execute("NOTIFY tokiochan, 'one'").await?;
            b.client.execute("SELECT pg_notify('tokiochan', $1)", &[&"zwei ü"]).await?;
            for _ in 0..2 {
                match tokio::time::timeout(Duration::from_secs(15), c.messages.next()).await {
                    Ok(Some(AsyncMessage::Notification(n))) => out.push(format!("{} {}", n.channel(), n.payload())),
                    other => out.push(format!("{}", other.is_err())),
                }
            }
        }
        "cancel" => {
            for _ in 0..3 {
                let token = c.client.cancel_token();
                let canceller = async {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    token.cancel_query(tls()).await
                };
                let (r, _) = future::join(c.client.batch_execute("SELECT pg_sleep(30)"), canceller).await;
                out.push(tried(r.map(|_| "?".into())));
                out.push(run(&c, "SELECT 'on'").await?);
            }
        }
        "several statements in one query" => {
            out.push(run(&c, "SELECT 1; SET work_mem = '5MB'; SELECT 2").await?);
            out.push(tried(run(&c, "SET work_mem = '6MB'; SELECT 1/0; SELECT 3").await));
            out.push(run(&c, "SHOW work_mem").await?);
        }
        "notices" => {
            c.client.batch_execute("DO $$ BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; END $$").await?;
            for _ in 0..2 {
                match tokio::time::timeout(Duration::from_secs(5), c.messages.next()).await {
                    Ok(Some(AsyncMessage::Notice(n))) => out.push(format!("{} {}", n.severity(), n.message())),
                    _ => out.push("none".into()),
                }
            }
        }
        "large value both ways" => {
            let text = "0123456789abcdef".repeat(5 * 65536);
            let data = vec![7u8; 5_000_000];
            let r = c.client.query_one("SELECT length($1::text), $1::text, $2::bytea", &[&text, &data]).await?;
            out.push(format!("{} {} {}", r.get::<_, i32>(0), r.get::<_, &str>(1) == text, r.get::<_, &[u8]>(2) == data));
        }
        "stream that is dropped" => {
            {
                let none: Vec<i32> = vec![];
                let stream = c.client.query_raw("SELECT g FROM generate_series(1, 100000) g", none).await?;
                pin_mut!(stream);
                out.push(stream.next().await.unwrap()?.get::<_, i32>(0).to_string());
            }
            out.push(run(&c, "SELECT 'on'").await?);
        }
        "composite types are looked up" => {
            c.client.batch_execute("DROP TYPE IF EXISTS t_tokiomood; CREATE TYPE t_tokiomood AS ENUM ('sad', 'happy')").await?;
            for _ in 0..2 {
                let s = c.client.prepare("SELECT 'sad'::t_tokiomood AS m, ARRAY['happy']::t_tokiomood[] AS a").await?;
                out.push(format!("{:?}", s.columns().iter().map(|c| c.type_().kind().clone()).map(|k| format!("{k:?}").replace(|c: char| c.is_ascii_digit(), "")).collect::<Vec<_>>()));
            }
            c.client.batch_execute("DROP TYPE t_tokiomood").await?;
        }
        "like a program: new statements, autocommit on" | "like a program: new statements, autocommit off" => {
            let auto = name.ends_with("on");
            c.client.batch_execute("DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)").await?;
            if !auto {
                c.client.batch_execute("BEGIN").await?;
            }
            for i in 0..30i32 {
                let s = c.client.prepare("INSERT INTO t_program VALUES ($1, $2)").await?;
                c.client.execute(&s, &[&i, &format!("v{i}")]).await?;
                drop(s);
                out.push(rows(&c.client.query("SELECT v FROM t_program WHERE id = $1", &[&i]).await?));
                if i % 10 == 5 {
                    out.push(tried(c.client.execute("INSERT INTO t_program VALUES ($1, 'again')", &[&i]).await.map(|n| n.to_string())));
                    out.push(tried(c.client.query("SELECT 'on or refused'", &[]).await.map(|r| rows(&r))));
                }
                if !auto && i % 2 == 1 {
                    c.client.batch_execute(if i % 4 == 3 { "ROLLBACK; BEGIN" } else { "COMMIT; BEGIN" }).await?;
                }
            }
            if !auto {
                c.client.batch_execute("COMMIT").await?;
            }
            out.push(run(&c, "SELECT count(*), sum(id) FROM t_program").await?);
            c.client.batch_execute("DROP TABLE t_program").await?;
        }
        "a copy that fails while its rows are sent" => {
            c.client.batch_execute("DROP TABLE IF EXISTS t_fails; CREATE TABLE t_fails (id int PRIMARY KEY, v text)").await?;
            for behind in [1, 50, 5000, 60000] {
                let mut sent = Ok(());
                let sink = c.client.copy_in("COPY t_fails FROM STDIN").await?;
                pin_mut!(sink);
                for i in -1..behind + 2 {
                    let id = if i < 1 { 1 } else { i };
                    sent = sink.send(io::Cursor::new(format!("{id}\ta row of some length, so that there are many messages\n").into_bytes())).await;
                    if sent.is_err() {
                        break;
                    }
                }
                // (it may have heard of it while it was sending, and then forgets what it was)
                out.push(match sent {
                    Ok(()) => tried(sink.finish().await.map(|n| n.to_string())),
                    Err(e) => if e.as_db_error().is_some() { error(&e) } else { "!ERROR 23505 duplicate key value violates unique constraint \"t_fails_pkey\" Key (id)=(1) already exists. ".into() },
                });
                out.push(run(&c, "SELECT 'on', count(*) FROM t_fails").await?);
            }
            c.client.batch_execute("DROP TABLE t_fails").await?;
        }
        "a client that leaves in the middle" => {
            c.client.batch_execute("DROP TABLE IF EXISTS t_leaves; CREATE TABLE t_leaves (id int PRIMARY KEY)").await?;
            let mut gone = c;
            for how in ["silent transaction", "transaction", "silent copy", "silent pipeline"] {
                if how != "silent transaction" {
                    gone = open(&[]).await?;
                }
                if how.ends_with("transaction") {
                    gone.client.batch_execute("BEGIN").await?;
                    gone.client.execute("INSERT INTO t_leaves VALUES ($1), ($2)", &[&1i32, &2i32]).await?;
                } else if how.ends_with("copy") {
                    let sink = gone.client.copy_in("COPY t_leaves FROM STDIN").await?;
                    pin_mut!(sink);
                    for i in 0..20000 {
                        sink.send(io::Cursor::new(format!("{i}\n").into_bytes())).await?;
                    }
                    gone.task.abort();
                } else {
                    // Several under way at once, in a transaction whose end is not.
                    gone.client.batch_execute("BEGIN").await?;
                    let many = future::join_all((0..50i32).map(|i| gone.client.execute("INSERT INTO t_leaves VALUES ($1)", Box::leak(Box::new([Box::leak(Box::new(i)) as &(dyn ToSql + Sync)])) as &[_]))).await;
                    out.push(many.iter().filter(|r| r.is_ok()).count().to_string());
                }
                if how.starts_with("silent") {
                    gone.task.abort();
                }
                drop(gone.client);
                let _ = gone.task.await;
                let look = open(&[]).await?;
                look.client.batch_execute("BEGIN; LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE").await?;
                out.push(run(&look, "SELECT count(*) FROM t_leaves").await?);
                look.client.batch_execute("COMMIT").await?;
                gone = look;
            }
            gone.client.batch_execute("DROP TABLE t_leaves").await?;
            return Ok(out);
        }
        other => panic!("no such case: {other}"),
    }
    Ok(out)
}

fn listed(name: &str) -> HashSet<String> {
    var(name).split('|').filter(|s| !s.is_empty()).map(str::to_string).collect()
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut common: Vec<(String, bool, Vec<String>)> = Vec::new();
    for line in std::fs::read_to_string(var("DRIVERS_CASES")).unwrap().lines() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix("case ") {
            let (name, two) = rest.split_once(' ').unwrap_or((rest, ""));
            common.push((name.to_string(), two == "two", Vec::new()));
        } else {
            common.last_mut().unwrap().2.push(line.to_string());
        }
    }
    let (only, skip, single) = (listed("DRIVERS_ONLY"), listed("DRIVERS_SKIP"), var("DRIVERS_ONE") == "1");
    let wanted = |name: &str, two: bool| (only.is_empty() || only.contains(name)) && !skip.contains(name) && !(single && two);
    let tell = |name: &str, parts: Vec<String>| {
        let text = parts.join(" ; ").replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
        println!("{name}\t{text}");
    };
    for (name, two, lines) in &common {
        if wanted(name, *two) {
            println!("> {name}");
            let parts = runtime.block_on(steps(lines));
            tell(name, parts);
        }
    }
    for (name, two) in OWN {
        if wanted(name, *two) {
            println!("> {name}");
            let parts = runtime.block_on(one(name)).unwrap_or_else(|e| vec![format!("!! {}", error(&e))]);
            tell(name, parts);
        }
    }
}
