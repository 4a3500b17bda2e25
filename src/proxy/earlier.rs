//! The result of an earlier try, kept during the next one. The app gets it if the next try brings nothing newer.

use std::time::Duration;

use super::Error;
use super::attempt::TryOutcome;
use crate::message::Response;
use crate::telemetry::{Exchange, TakenBackAnswer};
use crate::upstream::ResponseBody;
use crate::upstream::body::MOST_KEPT;

/// How long we read a response that the app will probably not get.
const MOST_READING: Duration = Duration::from_secs(1);

/// The result that the app gets if no further try reaches the upstream.
pub(super) enum EarlierOutcome<'r> {
    Answer(Box<TryOutcome<'r>>, TakenBackAnswer),
    /// There was no response, or it broke off while we read it.
    Error(Option<Error>),
}

impl<'r> EarlierOutcome<'r> {
    /// Keeps the result of a try. Reads a short response to its end, which frees its connection. Its permit is
    /// freed at once.
    pub(super) async fn of(mut tried: TryOutcome<'r>, exchange: &mut Exchange) -> Self {
        let recorded = exchange.take_back();
        tried.permit = None;
        match tried.result {
            Err(failed) => Self::Error(Some(failed.error.into())),
            Ok(response) => match with_beginning_read(response).await {
                Some(response) => {
                    tried.result = Ok(response);
                    Self::Answer(Box::new(tried), recorded)
                }
                None => Self::Error(None),
            },
        }
    }

    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Answer(..))
    }

    /// Returns the earlier response. Without one, the earlier error, or else `refusal`: the reason why no
    /// newer response came.
    pub(super) fn or(self, refusal: Error, exchange: &mut Exchange) -> Result<TryOutcome<'r>, Error> {
        match self {
            Self::Answer(tried, recorded) => {
                exchange.restore_answer(recorded);
                Ok(*tried)
            }
            Self::Error(error) => Err(error.unwrap_or(refusal)),
        }
    }
}

/// Reads the beginning of the body. `None`: the body broke off.
async fn with_beginning_read(response: Response<ResponseBody>) -> Option<Response<ResponseBody>> {
    let (parts, body) = response.into_parts();
    // A longer or slower rest stays on its connection: the app may get it after all.
    let body = body.read_ahead(MOST_KEPT, MOST_READING).await.ok()?;
    Some(Response::from_parts(parts, body))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body::Body;
    use http_body_util::BodyExt;

    use super::*;

    /// No byte is lost, whether the body was read to its end or not.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_set_aside_stays_whole() {
        for length in [0, 1, MOST_KEPT, MOST_KEPT + 1, 10 * MOST_KEPT] {
            let data: Bytes = (0..length).map(|at| at as u8).collect();
            let response = Response::new(ResponseBody::Whole(data.clone()));
            let body = with_beginning_read(response).await.unwrap().into_body();
            assert_eq!(body.size_hint().exact(), Some(length as u64), "{length}");
            assert_eq!(body.collect().await.unwrap().to_bytes(), data, "{length}");
        }
    }
}
