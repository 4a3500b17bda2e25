//! What an earlier try has come to, set aside while another one is made: it stands where nothing newer is heard.

use std::time::Duration;

use http::Response;

use super::Error;
use super::attempt::Tried;
use crate::telemetry::{Exchange, TakenBackAnswer};
use crate::upstream::ResponseBody;
use crate::upstream::body::MOST_KEPT;

/// What the app gets where no further try reaches the upstream.
pub(super) enum Aside<'r> {
    Answer(Box<Tried<'r>>, TakenBackAnswer),
    /// There was no answer, or it broke off while it was read.
    Error(Option<Error>),
}

impl<'r> Aside<'r> {
    /// Sets aside what a try has come to. A short answer is read to its end, so that its connection is free for others;
    /// its permit is free at once.
    pub(super) async fn of(mut tried: Tried<'r>, exchange: &mut Exchange) -> Self {
        let told = exchange.take_back();
        tried.permit = None;
        match tried.result {
            Err(failed) => Self::Error(Some(failed.error.into())),
            Ok(response) => match kept(response).await {
                Some(response) => {
                    tried.result = Ok(response);
                    Self::Answer(Box::new(tried), told)
                }
                None => Self::Error(None),
            },
        }
    }

    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Answer(..))
    }

    /// Lets it stand; `refusal` is why there is nothing newer, and counts where there is nothing older.
    pub(super) fn stand(self, refusal: Error, exchange: &mut Exchange) -> Result<Tried<'r>, Error> {
        match self {
            Self::Answer(tried, told) => {
                exchange.restore_answer(told);
                Ok(*tried)
            }
            Self::Error(error) => Err(error.unwrap_or(refusal)),
        }
    }
}

/// The answer with the beginning of its body read; `None` where it breaks off.
async fn kept(response: Response<ResponseBody>) -> Option<Response<ResponseBody>> {
    let (parts, body) = response.into_parts();
    // What is longer or slower stays on its connection: the app may get it after all.
    let body = body.read_ahead(MOST_KEPT, MOST_READING).await.ok()?;
    Some(Response::from_parts(parts, body))
}

/// For an answer that is likely not to be given to the app.
const MOST_READING: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body::Body;
    use http_body_util::BodyExt;

    use super::*;

    /// Read to its end or not, nothing of it is lost.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_set_aside_stays_whole() {
        for length in [0, 1, MOST_KEPT, MOST_KEPT + 1, 10 * MOST_KEPT] {
            let data: Bytes = (0..length).map(|at| at as u8).collect();
            let response = Response::new(ResponseBody::Whole(data.clone()));
            let body = kept(response).await.unwrap().into_body();
            assert_eq!(body.size_hint().exact(), Some(length as u64), "{length}");
            assert_eq!(body.collect().await.unwrap().to_bytes(), data, "{length}");
        }
    }
}
