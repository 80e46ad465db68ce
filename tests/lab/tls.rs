//! TLS servers with certificates of every kind, and servers that only look like one.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Lab, Namespace};

/// Whom a certificate is for, and when it is good.
#[derive(Clone, Debug)]
pub struct Wish {
    ips: Vec<IpAddr>,
    from: i32,
    until: i32,
    /// More names, so that it does not fit into one small packet.
    names: usize,
}

impl Wish {
    /// Good for this address, until 2100.
    pub fn good_for(ip: IpAddr) -> Self {
        Self {
            ips: vec![ip],
            from: 2020,
            until: 2100,
            names: 0,
        }
    }

    /// From the first of January of one year to that of another.
    #[must_use]
    pub fn between(mut self, from: i32, until: i32) -> Self {
        (self.from, self.until) = (from, until);
        self
    }

    /// With so many more names in it.
    #[must_use]
    pub fn with_names(mut self, names: usize) -> Self {
        self.names = names;
        self
    }
}

/// A certificate authority of the lab.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// Its own certificate and those above it, but the root's.
    chain: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("signed").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
            chain: Vec::new(),
        }
    }

    /// One that this one vouches for.
    pub fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let own = params.signed_by(&key, &self.issuer).expect("signed");
        let mut chain = vec![own.der().clone()];
        chain.extend(self.chain.iter().cloned());
        Self {
            pem: own.pem(),
            issuer: Issuer::new(params, key),
            chain,
        }
    }

    /// Its certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A file that holds its certificate, for `SSL_CERT_FILE`.
    pub fn file(&self, lab: &Lab, name: &str) -> PathBuf {
        let file = lab.dir().join(name);
        std::fs::write(&file, &self.pem).expect("the lab's directory is writable");
        file
    }

    /// A server's configuration with a certificate as wished.
    pub fn config(&self, wish: &Wish) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "lab server");
        params.not_before = date_time_ymd(wish.from, 1, 1);
        params.not_after = date_time_ymd(wish.until, 1, 1);
        let addresses = wish.ips.iter().map(|ip| SanType::IpAddress(*ip));
        let names = (0..wish.names).map(|n| {
            let name = format!("a-name-that-takes-room-{n}.example.org");
            SanType::DnsName(name.try_into().expect("a name"))
        });
        params.subject_alt_names = addresses.chain(names).collect();
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let mut chain = vec![CertificateDer::from(certificate.der().to_vec())];
        chain.extend(self.chain.iter().cloned());
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the key fits");
        Arc::new(config)
    }
}

/// Serves TLS at `at`, `delay` after each connection was taken: a handshake, one HTTP request and its answer. It goes on
/// until the test process ends.
pub fn serve(ns: &Namespace, at: SocketAddr, config: &Arc<ServerConfig>, delay: Duration) {
    let config = Arc::clone(config);
    each_connection(ns, at, move |tcp| {
        // The server is slow: that is what is simulated.
        std::thread::sleep(delay);
        let Ok(session) = ServerConnection::new(Arc::clone(&config)) else {
            return;
        };
        let mut stream = StreamOwned::new(session, tcp);
        let mut request = [0; 2048];
        if stream.read(&mut request).is_ok_and(|n| n > 0) {
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        }
    });
}

/// Takes each connection and says nothing until the other side closes.
pub fn serve_nothing(ns: &Namespace, at: SocketAddr) {
    each_connection(ns, at, |mut tcp| {
        let mut bytes = [0; 2048];
        while tcp.read(&mut bytes).is_ok_and(|n| n > 0) {}
    });
}

/// Greets each connection in words that are no TLS.
pub fn serve_greeting(ns: &Namespace, at: SocketAddr) {
    each_connection(ns, at, |mut tcp| {
        let _ = tcp.write_all(b"220 mail.example.org ESMTP\r\n");
        let _ = tcp.read(&mut [0; 2048]);
    });
}

fn each_connection(ns: &Namespace, at: SocketAddr, serve: impl Fn(TcpStream) + Send + Sync + 'static) {
    let listener = ns.run(|| TcpListener::bind(at)).expect("the port is free");
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(tcp));
        }
    });
}
