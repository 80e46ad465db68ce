//! The HTTP server: bounded in connections, in time, in what it reads; one thread.
//!
//! In: a bound socket and [`Shared`]. Out: answers. A request's head must come within `HEAD_WITHIN` and fit
//! `HEAD_MAX`; bodies are not read; a connection lives at most `LIFE` unless it listens for events.

mod guard;
pub mod routes;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, watch};

use super::confine::{Confinement, Role};
use super::shared::Shared;
use crate::sys::clock;
use crate::time::Span;

/// Connections at once; more wait in the kernel's queue until one ends.
const CONNECTIONS: usize = 256;
/// A request's head must be whole within this, from the connection's or the last answer's end on.
const HEAD_WITHIN: Span = Span::from_secs(10);
/// The longest head.
const HEAD_MAX: usize = 16 * 1024;
/// Header lines of a request.
const HEADERS: usize = 64;
/// After so long a connection is closed when its request is answered…
const LIFE: Span = Span::from_secs(120);
/// …and after this long more in any case: who reads an answer so slowly does not want it.
const FAREWELL: Span = Span::from_secs(10);
/// No accept for this long after one that failed (no descriptors left).
const ACCEPT_PAUSE: Span = Span::from_millis(100);
/// That accepts fail is said this often at most.
const SAY_EVERY: Span = Span::from_secs(60);
/// It ends within this, or is left behind.
pub const END_WITHIN: Span = Span::from_millis(200);

/// Marks a connection that stays: it listens for events.
#[derive(Clone, Debug, Default)]
pub struct Stays(Arc<AtomicBool>);

impl Stays {
    /// From now on it stays.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The running server.
pub struct Server {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

impl Server {
    /// Serves at `listener` until stopped.
    pub fn start(
        listener: TcpListener,
        shared: Arc<Shared>,
        confinement: Confinement,
    ) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (stop, stopped) = watch::channel(false);
        let (alive, ended) = sync_channel::<()>(0);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(2)
            .thread_keep_alive(Span::from_secs(2))
            .thread_stack_size(512 * 1024)
            .build()?;
        let thread = std::thread::Builder::new()
            .name("http".to_owned())
            .stack_size(1024 * 1024)
            .spawn(move || {
                let _alive = alive;
                if let Err(error) = confinement.apply(Role::Http) {
                    tracing::error!("HTTP is not served unconfined: {error:#}");
                    return;
                }
                if let Err(error) = runtime.block_on(serve(listener, shared, stopped)) {
                    tracing::error!("HTTP has ended: {error}");
                }
                // Whatever still writes is given up.
                runtime.shutdown_background();
            })?;
        Ok(Self { stop, thread, ended })
    }

    /// Whether it still serves.
    pub fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Takes no more connections. Those that are open end with the process. False where it did not end in time.
    pub fn stop(self) -> bool {
        let _ = self.stop.send(true);
        self.ended.recv_timeout(END_WITHIN) != Err(RecvTimeoutError::Timeout)
    }
}

async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = routes::router(shared);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut say_from = clock::instant();
    loop {
        let accepted = tokio::select! {
            _ = stopped.changed() => return Ok(()),
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                let now = clock::instant();
                if now >= say_from {
                    say_from = now + SAY_EVERY;
                    tracing::warn!("cannot take a connection: {error}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let stays = Stays::default();
        let service = TowerToHyperService::new(router.clone().layer(axum::Extension(stays.clone())));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(HEAD_MAX)
            .max_headers(HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            let _place = place;
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                _ = &mut connection => return,
                () = tokio::time::sleep(LIFE) => {}
            }
            if stays.get() {
                // Its own route bounds how many there are.
                let _ = connection.await;
            } else {
                connection.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(FAREWELL, connection).await;
            }
        });
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &tokio::net::TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}
