//! The interface between the simulation and the limiter.

use std::sync::Arc;

use http::{Method, StatusCode};

use crate::config::OnLimit;
use crate::host::{Host, Scheme, Target};
use crate::limit::tests::{settings, with};
use crate::limit::{Caller, Limiter, Permit, Refusal, RequestAttributes, Settings};
use crate::message::Fields;

#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) path: &'static str,
    pub(super) host: &'static str,
    /// The user whose `Authorization` it carries.
    pub(super) user: &'static str,
}

impl Request {
    /// The handler behind the path: its first segment.
    pub(super) fn route(&self) -> &'static str {
        self.path.split('/').nth(1).unwrap_or_default()
    }

    fn target(&self) -> Target {
        Target {
            scheme: Scheme::Https,
            host: Host::Name(self.host.into()),
            port: 443,
        }
    }

    fn caller(&self) -> Caller {
        Caller(self.user.bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte)))
    }

    fn asked<'a>(
        &self,
        target: &'a Target,
        caller: &'a (dyn Fn() -> Caller + Sync),
    ) -> RequestAttributes<'a> {
        RequestAttributes {
            caller,
            method: &Method::GET,
            path: self.path,
            target,
        }
    }
}

/// `respects`: it learns from the answers.
pub(super) fn limiter(on_limit: OnLimit, respects: bool) -> Arc<Limiter> {
    with(Settings {
        respect_upstream: respects,
        ..settings(on_limit)
    })
}

pub(super) async fn admit(limiter: &Arc<Limiter>, request: &Request) -> Result<Permit, Refusal> {
    let (target, caller) = (request.target(), request.caller());
    limiter.admit(request.asked(&target, &|| caller), || None).await
}

pub(super) fn learn(permit: &Permit, request: &Request, status: u16, fields: &Fields) {
    let (target, caller) = (request.target(), request.caller());
    let status = StatusCode::from_u16(status).unwrap();
    permit.learn(status, fields, request.asked(&target, &|| caller));
}
