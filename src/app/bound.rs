//! Listening sockets: bound before anything else is built, opened when all of it is.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use socket2::SockRef;

use super::{Addresses, Error};
use crate::ca;
use crate::config::{Ca, Config, Listen};
use crate::memory::MEMORY;
use crate::stream::bound_buffers;
use crate::worker::BoundListener;

const BACKLOG: i32 = 1024;

/// Sockets that have their addresses but do not accept yet.
pub(super) struct BoundSockets {
    admin: Option<socket2::Socket>,
    tcp: Vec<(socket2::Socket, SocketAddr)>,
    unix: Vec<(std::os::unix::net::UnixListener, PathBuf)>,
}

impl BoundSockets {
    pub(super) fn bind(config: &Config) -> Result<Self, Error> {
        let mut bound = Self {
            admin: None,
            tcp: Vec::new(),
            unix: Vec::new(),
        };
        for listen in &config.listen {
            match listen {
                Listen::Tcp(address) => bound.tcp.push(bind_tcp(*address)?),
                Listen::Unix(path) => bound.unix.push((bind_unix(path)?, path.clone())),
            }
        }
        bound.admin = config.admin.map(bind_tcp).transpose()?.map(|(socket, _)| socket);
        Ok(bound)
    }

    /// Returns our own addresses, which must never be dialled.
    pub(super) fn own(&self) -> Vec<SocketAddr> {
        let admin = self.admin.as_ref().and_then(local_address);
        self.tcp
            .iter()
            .map(|(_, address)| *address)
            .chain(admin)
            .collect()
    }

    pub(super) fn addresses(&self, ca: &Ca) -> Addresses {
        let tcp = self.tcp.iter().map(|(_, address)| Listen::Tcp(*address));
        let unix = self.unix.iter().map(|(_, path)| Listen::Unix(path.clone()));
        Addresses {
            admin: self.admin.as_ref().and_then(local_address),
            ca: ca.clone(),
            listen: tcp.chain(unix).collect(),
        }
    }

    pub(super) fn open(self) -> io::Result<(Vec<BoundListener>, Option<std::net::TcpListener>)> {
        let mut listeners = Vec::new();
        for (socket, _) in self.tcp {
            listeners.push(open_tcp(socket)?);
        }
        listeners.extend(
            self.unix
                .into_iter()
                .map(|(listener, _)| BoundListener::Unix(listener)),
        );
        let admin = self
            .admin
            .map(|socket| socket.listen(BACKLOG).map(|()| socket.into()))
            .transpose()?;
        Ok((listeners, admin))
    }
}

/// Makes a bound socket accept.
pub(super) fn open_tcp(socket: socket2::Socket) -> io::Result<BoundListener> {
    socket.listen(BACKLOG)?;
    Ok(BoundListener::Tcp(socket.into()))
}

pub(super) fn bind_tcp(address: SocketAddr) -> Result<(socket2::Socket, SocketAddr), Error> {
    let bind = || {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM.cloexec().nonblocking(),
            None,
        )?;
        // After a restart the old connections of the port may linger.
        socket.set_reuse_address(true)?;
        if let Some(bytes) = MEMORY.kernel_buffer() {
            // Each connection that it accepts has the same bounds.
            bound_buffers(&SockRef::from(&socket), bytes);
        }
        socket.bind(&address.into())?;
        let local = local_address(&socket).unwrap_or(address);
        Ok((socket, local))
    };
    bind().map_err(|source| Error::bind(address.to_string(), source))
}

pub(super) fn bind_unix(path: &Path) -> Result<std::os::unix::net::UnixListener, Error> {
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::{UnixListener, UnixStream};
    let bind = || match UnixListener::bind(path) {
        // A crash leaves a socket file where nobody answers. Any other file belongs to somebody.
        Err(error)
            if error.kind() == io::ErrorKind::AddrInUse
                && std::fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket())
                && UnixStream::connect(path).is_err() =>
        {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        result => result,
    };
    let socket = bind().map_err(|source| Error::bind(format!("unix:{}", path.display()), source))?;
    if !ca::is_ours(path) {
        tracing::warn!(
            path = %path.display(),
            "other users can change the folder of this socket, and lead the app to another one: use a folder of your own",
        );
    }
    Ok(socket)
}

fn local_address(socket: &socket2::Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dead_socket_makes_way_for_a_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("door");
        std::fs::write(&path, "somebody's").unwrap();
        assert!(bind_unix(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's");

        std::fs::remove_file(&path).unwrap();
        let first = bind_unix(&path).unwrap();
        assert!(bind_unix(&path).is_err(), "somebody answers there");
        drop(first);
        assert!(bind_unix(&path).is_ok(), "nobody does any more");
    }
}
