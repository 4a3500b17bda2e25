//! The one place where the simulation meets the limiter.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::DATE;
use http::{HeaderMap, Method, StatusCode};

use super::super::{settings, with};
use crate::config::OnLimit;
use crate::host::{Host, Scheme, Target};
use crate::limit::{Asked, Caller, Limiter, Permit, Refusal, Settings};
use crate::units;

#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) path: &'static str,
    pub(super) host: &'static str,
    /// Whose `Authorization` it carries.
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

    fn asked<'a>(&self, target: &'a Target, caller: &'a (dyn Fn() -> Caller + Sync)) -> Asked<'a> {
        Asked {
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

/// `wall` is the moment in the simulation, in milliseconds since the epoch.
pub(super) fn learn(permit: &Permit, request: &Request, status: u16, mut fields: HeaderMap, wall: u64) {
    translate(&mut fields, wall);
    let (target, caller) = (request.target(), request.caller());
    let status = StatusCode::from_u16(status).unwrap();
    permit.learn(status, &fields, request.asked(&target, &|| caller));
}

/// The limiter asks the machine for the time of day. So moments of the simulation are told as moments that are as far
/// from that.
fn translate(fields: &mut HeaderMap, wall: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (second, simulated) = (now.as_secs(), wall / 1000);
    let date = fields.get(DATE).map(|date| {
        let date = httpdate::parse_http_date(date.to_str().unwrap()).unwrap();
        date.duration_since(UNIX_EPOCH).unwrap().as_secs()
    });
    // An answer may have left in the second before.
    let wrong = date.filter(|date| date.abs_diff(simulated) > 1);
    let new_date = wrong.map_or(second, |date| second + date - simulated);
    if date.is_some() {
        let date = units::http_date(UNIX_EPOCH + Duration::from_secs(new_date));
        fields.insert(DATE, date.parse().unwrap());
    }
    let Some(reset) = fields.get_mut("x-ratelimit-reset") else {
        return;
    };
    let moment: u64 = reset.to_str().unwrap().parse().unwrap();
    if moment < 1_000_000_000 {
        return;
    }
    let moment = match wrong {
        Some(date) => (new_date + moment - date).to_string(),
        None => {
            let moment = now + Duration::from_secs(moment) - Duration::from_millis(wall);
            format!("{:.6}", moment.as_secs_f64())
        }
    };
    *reset = moment.parse().unwrap();
}
