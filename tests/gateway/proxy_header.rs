//! PROXY protocol headers to upstreams: what they say, that others read them, and that no
//! connection serves two clients.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use ringway::wire::{
    Parsed,
    proxy::{Header, parse},
};
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};

use crate::harness::{Client, Conn, Gateway, Papers, Socket, Upstream, eventually};

/// The header in front of a connection.
fn header(conn: &mut Conn) -> (Header, Vec<u8>) {
    loop {
        match parse(&conn.reader.buf) {
            Ok(Parsed::Complete(header)) => {
                return (header, conn.reader.buf.drain(..header.len).collect());
            }
            Err(_) if conn.reader.buf.is_empty() => {}
            Err(no) => panic!("{no:?}: {:?}", conn.reader.buf),
            Ok(Parsed::Partial) => {}
        }
        if !matches!(conn.reader.fill(), Ok(1..)) {
            return (Header { len: 0, source: None }, Vec::new());
        }
    }
}

/// Answers every request with the address in the connection's header and the connection's number.
fn tells() -> Upstream {
    Upstream::scripted(|conn| {
        let (header, _) = header(conn);
        let source = header.source.map_or("nobody".to_owned(), |at| at.to_string());
        while conn.request().is_ok() {
            let body = format!("{source} {}", conn.index);
            conn.ok(body);
        }
    })
}

fn before(address: SocketAddr, version: &str, listener: &str) -> Gateway {
    Gateway::start(&format!(
        "[runtime]\nworkers = 1\n{listener}\n[[routes]]\npath = \"/\"\nupstream = \"app\"\n\
         [upstreams.app]\nendpoints = [\"{address}\"]\nproxy_protocol = \"{version}\"\n"
    ))
}

#[test]
fn a_connection_is_one_clients_and_is_kept_for_it() {
    for version in ["v1", "v2"] {
        let upstream = tells();
        let gateway = before(upstream.address(), version, "");
        let mut clients = [gateway.client(), gateway.client(), gateway.client()];
        let mut used = Vec::new();
        for _ in 0..3 {
            let round: Vec<String> = clients.iter_mut().map(|c| c.get("/").text()).collect();
            for (client, text) in clients.iter().zip(&round) {
                let address = client.address().to_string();
                assert_eq!(text.split(' ').next(), Some(&*address), "{version}");
            }
            used.push(round);
        }
        assert!(used.iter().all(|round| *round == used[0]), "each keeps its own: {used:?}");
        assert_eq!(upstream.connections(), 3);
        drop(clients);
        upstream.wait_until_idle();
        let mut another = gateway.client();
        let address = another.address();
        assert_eq!(another.get("/").text(), format!("{address} 3"));
    }
}

#[test]
fn requests_over_http2_are_of_their_connection() {
    let (upstream, folder, papers) = (tells(), tempfile::tempdir().unwrap(), Papers::new());
    papers.issue("gw", &["gw.test"]);
    let gateway = before(upstream.address(), "v2", &papers.listener(&["gw"], ""));
    let file = |n| folder.path().join(n).display().to_string();
    let port = gateway.address().port();
    // Several at a time over one connection.
    let mut command = Command::new("curl");
    command.args(["-sS", "--http2", "--parallel", "--cacert"]).arg(papers.path("gw.pem"));
    command.args(["--resolve", &format!("gw.test:{port}:127.0.0.1")]);
    command.args(["-w", "%{local_port}\\n"]);
    for n in ["a", "b", "c"] {
        command.args(["-o", &file(n), &format!("https://gw.test:{port}/{n}")]);
    }
    let output = command.output().unwrap();
    let ports = String::from_utf8(output.stdout).unwrap();
    let mut told: Vec<String> = ["a", "b", "c"]
        .into_iter()
        .map(|n| std::fs::read_to_string(file(n)).unwrap())
        .map(|text| text.split(' ').next().unwrap().to_owned())
        .collect();
    let mut ports: Vec<String> = ports.lines().map(|port| format!("127.0.0.1:{port}")).collect();
    told.sort();
    ports.sort();
    assert_eq!(told, ports, "each is told of the connection it came by");
    ports.dedup();
    assert_eq!(ports.len(), 1, "all came by one: {told:?}");
    assert!(upstream.recorded()[0][28..].starts_with(b"\x01\0\x02h2"), "and HTTP/2 is told");
}

#[test]
fn a_kept_connection_that_died_is_replaced() {
    let upstream = Upstream::scripted(|conn| {
        let (header, _) = header(conn);
        if conn.request().is_ok() {
            conn.ok(header.source.unwrap().to_string());
        }
    });
    let gateway = before(upstream.address(), "v2", "");
    let mut client = gateway.client();
    let address = client.address().to_string();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), address);
    }
    assert_eq!(upstream.connections(), 3);
}

#[test]
fn a_client_without_an_address_is_told_as_such() {
    for (version, wanted) in
        [("v1", &b"PROXY UNKNOWN\r\n"[..]), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0")]
    {
        let upstream = tells();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("gw.sock");
        let bind = format!("[[listeners]]\nbind = \"unix:{}\"\n", socket.display());
        let _gateway = before(upstream.address(), version, &bind);
        assert_eq!(Client::connect_unix(&socket).get("/").text(), "nobody 0");
        assert!(upstream.recorded()[0].starts_with(wanted), "{version}");
    }
}

#[test]
fn whom_a_proxy_in_front_speaks_for_is_passed_on() {
    let upstream = tells();
    let listener = "[[listeners]]\nbind = \"127.0.0.1:0\"\nproxy_protocol = \"required\"\n\
                    [forwarding]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    let gateway = before(upstream.address(), "v2", listener);
    for (n, source) in ["192.0.2.7:4242", "[2001:db8::7]:4242"].into_iter().enumerate() {
        let at: SocketAddr = source.parse().unwrap();
        let (family, other) = if at.is_ipv4() { (4, "192.0.2.1") } else { (6, "2001:db8::1") };
        let mut client = gateway.client();
        client.send(format!("PROXY TCP{family} {} {other} {} 443\r\n", at.ip(), at.port()));
        assert_eq!(client.get("/").text(), format!("{source} {n}"));
    }
}

#[test]
fn a_tunnel_has_its_header_too() {
    let upstream = Upstream::scripted(|conn| {
        let (header, _) = header(conn);
        if conn.request_head().is_ok() {
            conn.send(crate::upgrade::SWITCH);
            conn.send(header.source.unwrap().to_string());
        }
    });
    let gateway = before(upstream.address(), "v2", "");
    let mut client = gateway.client();
    crate::upgrade::switch(&mut client);
    let address = client.address().to_string();
    assert_eq!(client.reader.read_to_end().unwrap(), address.as_bytes());
}

fn over_tls(gateway: &Gateway, papers: &Papers, name: &'static str) -> Client {
    let mut config = papers.trusting(&["gw"]);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(name).unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let tcp = TcpStream::connect(gateway.address()).unwrap();
    Client::over(Socket::Tls(Box::new(StreamOwned::new(session, tcp))))
}

#[test]
fn what_tls_agreed_on_is_told() {
    let papers = Papers::new();
    papers.issue("gw", &["gw.test"]);
    let upstream = Upstream::scripted(|conn| {
        let (_, bytes) = header(conn);
        while conn.request().is_ok() {
            conn.ok(&bytes);
        }
    });
    let gateway = before(upstream.address(), "v2", &papers.listener(&["gw"], ""));
    let mut client = over_tls(&gateway, &papers, "gw.test");
    let bytes = client.get("/").body;
    let tlvs = b"\x01\0\x08http/1.1\x02\0\x07gw.test\x20\0\x0f\x01\0\0\0\x01\x21\0\x07TLSv1.3";
    assert_eq!(&bytes[28..], tlvs, "{bytes:?}");
}

/// A client with this address.
fn from(address: [u8; 4], gateway: &Gateway) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&gateway.address().into()).unwrap();
    Client::over(Socket::Tcp(socket.into()))
}

#[test]
fn an_upstream_that_speaks_tls_gets_it_before_the_handshake() {
    let (papers, behind) = (Papers::new(), Upstream::ok());
    papers.issue("gw", &["gw.test"]);
    let listener = papers
        .listener(&["gw"], "")
        .replace("name = \"main\"", "name = \"main\"\nproxy_protocol = \"required\"");
    let more = "[forwarding]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    let inner = Gateway::before(behind.address(), &format!("{listener}{more}"));
    let ca = papers.path("gw.pem");
    let outer = Gateway::start(&format!(
        "[forwarding]\nfields = \"off\"\n[[routes]]\npath = \"/\"\nupstream = \"app\"\n\
         [upstreams.app]\nproxy_protocol = \"v2\"\nendpoints = [\"{}\"]\ntls = {{ ca = \"{}\", name = \"gw.test\" }}\n",
        inner.address(),
        ca.display()
    ));
    // The inner gateway has it from the header alone.
    let mut client = from([127, 0, 0, 7], &outer);
    for path in ["/a", "/b"] {
        assert_eq!(client.get(path).status, 200);
        assert_eq!(behind.request_for(path).field("x-forwarded-for"), Some("127.0.0.7"));
    }
}

#[test]
fn tls_that_passes_through_is_announced_with_its_name() {
    let papers = Papers::new();
    papers.issue("gw", &["gw.test"]);
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let upstream = Upstream::scripted(move |conn| {
        tell.lock().unwrap().send(header(conn)).unwrap();
    });
    let gateway = Gateway::start(&format!(
        "[[listeners]]\nbind = \"127.0.0.1:0\"\npassthrough = [{{ upstream = \"app\" }}]\n\
         [upstreams.app]\nproxy_protocol = \"v2\"\nendpoints = [\"{}\"]\n",
        upstream.address()
    ));
    let mut client = over_tls(&gateway, &papers, "gw.test");
    let tcp = match &client.reader.socket {
        Socket::Tls(stream) => stream.sock.local_addr().unwrap(),
        _ => unreachable!(),
    };
    client.try_send("x");
    let (header, bytes) = told.recv().unwrap();
    assert_eq!(header.source, Some(tcp));
    assert_eq!(&bytes[28..], b"\x02\0\x07gw.test");
}

/// Another program in the place of an upstream; ends with its test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[track_caller]
fn start(program: &str, arguments: &[&str], at: SocketAddr) -> Program {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let child = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}; scripts/setup installs it"));
    let program = Program(child);
    eventually("the other program accepts", || TcpStream::connect(at).is_ok());
    program
}

#[test]
fn nginx_reads_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    let at = free_port();
    let file = folder.path().join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log;\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path {0}/a; proxy_temp_path {0}/b;\n\
         fastcgi_temp_path {0}/c; uwsgi_temp_path {0}/d; scgi_temp_path {0}/e;\n\
         server {{ listen {at} proxy_protocol; location / {{ return 200 \
         \"$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_port\"; }} }} }}\n",
        folder.path().display()
    );
    std::fs::write(&file, text).unwrap();
    let _nginx = start("nginx", &["-c", file.to_str().unwrap()], at);
    for version in ["v1", "v2"] {
        let gateway = before(at, version, "");
        let mut client = gateway.client();
        for _ in 0..2 {
            let wanted = format!("{} {}", client.address(), gateway.address().port());
            assert_eq!(client.get("/").text(), wanted, "{version}");
        }
    }
}

#[test]
fn haproxy_reads_the_name_and_tls() {
    let (folder, papers) = (tempfile::tempdir().unwrap(), Papers::new());
    papers.issue("gw", &["gw.test"]);
    let at = free_port();
    let file = folder.path().join("haproxy.cfg");
    let mut out = std::fs::File::create(&file).unwrap();
    write!(
        out,
        "defaults\n mode http\n timeout client 10s\n timeout connect 10s\n timeout server 10s\n\
         frontend f\n bind {at} accept-proxy\n http-request return status 200 content-type \
         text/plain lf-string \"%[src]:%[src_port] %[fc_pp_authority]\"\n"
    )
    .unwrap();
    let _haproxy = start("haproxy", &["-db", "-f", file.to_str().unwrap()], at);
    for (version, name) in [("v1", ""), ("v2", "gw.test")] {
        let gateway = before(at, version, &papers.listener(&["gw"], ""));
        let mut client = over_tls(&gateway, &papers, "gw.test");
        for _ in 0..2 {
            let text = client.get("/").text();
            let wanted = format!("{} {name}", client.address());
            assert_eq!(text.trim_end(), wanted.trim_end(), "{version}");
        }
    }
}
