//! The commands' side of the control socket: one connection for each request, on a small runtime of its own, so that
//! callers need not know that anything is asynchronous.

use std::future::Future;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use tokio::net::UnixStream;

use super::view::Problem;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody listens.
    #[error("no switch is running at {} (start one with `nuswitch run --config FILE`)", .0.display())]
    NotRunning(PathBuf),
    /// The socket's mode forbids it.
    #[error("no permission to use {}{owner}; run this as root, or set `control_group` and `control_mode` in the configuration",
        path.display())]
    PermissionDenied {
        /// The socket.
        path: PathBuf,
        /// Whose it is, when that can be seen.
        owner: String,
    },
    /// The connection failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The other side does not speak HTTP, or hung up.
    #[error("the switch at {} hung up: {source}", path.display())]
    Http {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: hyper::Error,
    },
    /// No answer in time.
    #[error("the switch at {} did not answer within {} seconds", path.display(), TIMEOUT.as_secs())]
    Timeout {
        /// The socket.
        path: PathBuf,
    },
    /// The answer is not what this version expects.
    #[error("the answer cannot be read ({0}); is the running switch of another version?")]
    Answer(#[from] serde_json::Error),
    /// The switch said no.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// What a stream was written to failed.
    #[error(transparent)]
    Output(io::Error),
}

/// Most seconds that an answer may take. A reload that opens hundreds of devices is the longest.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Talks to the switch behind one socket.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    runtime: tokio::runtime::Runtime,
}

/// A name as a part of a request's path: everything but letters, digits and `-._~` in percent form (RFC 3986, 2.3).
pub fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

impl Client {
    /// For the switch at `path`; connects with the first request.
    ///
    /// # Errors
    /// When the system has no descriptors for a runtime.
    pub fn new(path: &Path) -> io::Result<Client> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Client { path: path.to_owned(), runtime })
    }

    /// Asks for `path` and reads the answer as `T`.
    ///
    /// # Errors
    /// When there is no switch, it says no, or its answer is no `T`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// Asks for `path` and reads what stands under `key` in the answer, as in `{"ports": […]}`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn get_key<T: DeserializeOwned>(&self, path: &str, key: &str) -> Result<T, Error> {
        let mut answer: Value = self.get(path)?;
        Ok(serde_json::from_value(answer.get_mut(key).map(Value::take).unwrap_or_default())?)
    }

    /// Sends `body` to `path` and reads the answer as `T`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        self.ask(Method::POST, path, serde_json::to_vec(body)?.into())
    }

    /// Removes what stands at `path` and reads the answer as `T`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.ask(Method::DELETE, path, Bytes::new())
    }

    /// Asks for `path` and passes the body to `take` piece by piece, until it ends, `take` breaks or `stop` is done.
    ///
    /// # Errors
    /// As [`Client::get`], and what `take` says.
    pub fn stream(
        &self,
        path: &str,
        stop: impl Future<Output = ()>,
        mut take: impl FnMut(&[u8]) -> io::Result<ControlFlow<()>>,
    ) -> Result<(), Error> {
        self.runtime.block_on(async {
            let response = self.within(self.send(Method::GET, path, Bytes::new())).await?;
            let mut body = accept(response).await.map_err(|error| self.name(error))?;
            let mut stop = std::pin::pin!(stop);
            loop {
                let frame = tokio::select! {
                    biased;
                    () = &mut stop => return Ok(()),
                    frame = body.frame() => frame,
                };
                let Some(frame) = frame else { return Ok(()) };
                let frame = frame.map_err(|source| Error::Http { path: self.path.clone(), source })?;
                let Some(piece) = frame.data_ref() else { continue };
                if take(piece).map_err(Error::Output)?.is_break() {
                    return Ok(());
                }
            }
        })
    }

    fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, Error> {
        let answer = async {
            let response = self.send(method, path, body).await?;
            let body = accept(response).await.map_err(|error| self.name(error))?;
            let bytes =
                body.collect().await.map_err(|source| Error::Http { path: self.path.clone(), source })?;
            Ok(serde_json::from_slice(&bytes.to_bytes())?)
        };
        self.runtime.block_on(self.within(answer))
    }

    async fn within<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let timeout = |_| Error::Timeout { path: self.path.clone() };
        tokio::time::timeout(TIMEOUT, answer).await.map_err(timeout)?
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Error> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.no_connection(error))?;
        let broken = |source| Error::Http { path: self.path.clone(), source };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(async move {
            // Its errors come out of the response as well.
            let _ = connection.await;
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "localhost")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Error::Io { path: self.path.clone(), source: io::Error::other(error) })?;
        sender.send_request(request).await.map_err(broken)
    }

    fn no_connection(&self, source: io::Error) -> Error {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NotRunning(path),
            io::ErrorKind::PermissionDenied => Error::PermissionDenied { owner: owner(&path), path },
            _ => Error::Io { path, source },
        }
    }

    fn name(&self, error: Failure) -> Error {
        match error {
            Failure::Http(source) => Error::Http { path: self.path.clone(), source },
            Failure::Refused(problem) => problem.into(),
        }
    }
}

enum Failure {
    Http(hyper::Error),
    Refused(Problem),
}

/// The body of a success; anything else as the problem that it carries.
async fn accept(response: Response<Incoming>) -> Result<Incoming, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response.into_body());
    }
    let bytes = response.into_body().collect().await.map_err(Failure::Http)?.to_bytes();
    let problem = serde_json::from_slice::<Problem>(&bytes).unwrap_or_else(|_| {
        Problem::internal(format!("the switch answered {status}"))
            .with_detail(String::from_utf8_lossy(&bytes))
    });
    Err(Failure::Refused(Problem { status: status.as_u16(), ..problem }))
}

fn owner(path: &Path) -> String {
    let Ok(file) = std::fs::metadata(path) else { return String::new() };
    let user = nix::unistd::User::from_uid(file.uid().into()).ok().flatten().map(|user| user.name);
    let group = nix::unistd::Group::from_gid(file.gid().into()).ok().flatten().map(|group| group.name);
    let (user, group) =
        (user.unwrap_or_else(|| file.uid().to_string()), group.unwrap_or_else(|| file.gid().to_string()));
    format!(", which belongs to {user}:{group} with mode {:04o}", file.permissions().mode() & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_for_a_path() {
        assert_eq!(encode("web-1.a_b~"), "web-1.a_b~");
        assert_eq!(encode("a/b c?ü"), "a%2Fb%20c%3F%C3%BC");
    }

    #[test]
    fn without_a_switch_the_error_says_how_to_start_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let expected = format!(
            "no switch is running at {} (start one with `nuswitch run --config FILE`)",
            path.display()
        );
        let ask = || Client::new(&path).unwrap().get::<Value>("/v1/status").unwrap_err().to_string();
        assert_eq!(ask(), expected, "no file");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert_eq!(ask(), expected, "a stale file");
    }

    #[test]
    fn one_who_hangs_up_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let other = std::thread::spawn(move || drop(listener.accept().unwrap()));
        let error = Client::new(&path).unwrap().get::<Value>("/v1/status").unwrap_err();
        assert!(matches!(error, Error::Http { .. } | Error::Io { .. }), "{error}");
        other.join().unwrap();
    }
}
