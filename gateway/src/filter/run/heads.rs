//! A head's way through the chain, from when it has come to when it goes on. Where no filter has it wait and nobody follows the
//! body, that is done at once and costs no future, which would be larger than all that it does.

use super::Run;
use crate::{
    fault::Fault,
    filter::{
        filtered::Filtered,
        message::{Kind, Line},
        passage::{Begun, Halt, Passage},
    },
    http::{Request, Response, body::Body},
};
use ::http::{HeaderMap, StatusCode, Uri};
use futures_util::future::{Either, LocalBoxFuture};
use http_body::Body as _;
use std::{
    future::{Ready, poll_fn, ready},
    pin::pin,
    time::Instant,
};
use tidegate_policy::Reason;

/// What the chain answers in a message's place; nothing where it goes on, as it was left. The reason of an answer with status 400
/// and above is `FilterDenied`.
type Answered = Result<Option<Box<Response>>, Fault>;

/// The same on its way: known at once where the message goes on, no filter has it wait and none follows the body.
pub type Answering<'a> = Either<Ready<Answered>, LocalBoxFuture<'a, Answered>>;

/// A message's first line and fields, as they come out of the chain.
type Head = (Line, HeaderMap);

impl Run {
    /// Shows the request to every filter in order: its head now, and its body as it is read, unless filters hold the head
    /// until they have seen of the body what they want to.
    pub fn request<'a>(&'a self, request: &'a mut Request) -> Answering<'a> {
        let mut passage = Passage::new(&self.0, Kind::Request, std::mem::take(request.headers_mut()));
        let ended = request.body().is_end_stream();
        let shown = passage.begin_at_once(ended);
        if matches!(shown, Ok(Begun::Shown)) && !passage.follows() {
            return Either::Left(ready(passage.into_head().and_then(|head| self.onward(request, head)).map(|()| None)));
        }
        Either::Right(Box::pin(async move {
            match until_out(passage, shown, ended, request.body_mut()).await {
                Ok(head) => self.onward(request, head).map(|()| None),
                Err(Halt::Reply(reply)) => self.answer(*reply).await.map(|answer| Some(Box::new(answer))),
                Err(Halt::Fault(fault)) => Err(fault),
            }
        }))
    }

    /// Shows the response, whose head came at `came`, to every filter in reverse order, as `request` does.
    pub fn response<'a>(&'a self, response: &'a mut Response, came: Instant) -> Answering<'a> {
        self.0.lap.set(came);
        let status = response.status();
        self.0.known.responded(status);
        let mut passage = Passage::new(&self.0, Kind::Response, std::mem::take(response.headers_mut()));
        passage.status = status.as_u16();
        passage.may_have_body = !self.0.known.asked_for_head() && !matches!(status.as_u16(), 100..=199 | 204 | 205 | 304);
        // What follows a switch of protocols is no body.
        let ended = response.body().is_end_stream() || status == StatusCode::SWITCHING_PROTOCOLS;
        let shown = passage.begin_at_once(ended);
        if matches!(shown, Ok(Begun::Shown)) && !passage.follows() {
            let head = passage.into_head();
            return Either::Left(ready(head.map(|head| back(response, head)).map(|()| None)));
        }
        Either::Right(Box::pin(async move {
            match until_out(passage, shown, ended, response.body_mut()).await {
                Ok(head) => {
                    back(response, head);
                    Ok(None)
                }
                Err(Halt::Reply(reply)) => Ok(Some(reply)),
                Err(Halt::Fault(fault)) => Err(fault),
            }
        }))
    }

    /// Leaves the request as the filters want it to go on, and keeps what they wish for it.
    fn onward(&self, request: &mut Request, (line, headers): Head) -> Result<(), Fault> {
        *request.headers_mut() = headers;
        self.0.wish.replace(line.wish);
        if let Some((method, path)) = line.rewritten {
            *request.method_mut() = method;
            let mut uri = std::mem::take(request.uri_mut()).into_parts();
            uri.path_and_query = Some(path);
            *request.uri_mut() = Uri::from_parts(uri).map_err(|error| Fault::new(Reason::FilterFailed, error.to_string()))?;
        }
        Ok(())
    }
}

/// Leaves the response as the filters want it to go back.
fn back(response: &mut Response, (line, headers): Head) {
    *response.headers_mut() = headers;
    if let Some(status) = line.status {
        *response.status_mut() = status;
    }
}

/// Shows what is left to show until the head is out, and leaves the body as it goes on with it.
async fn until_out(mut passage: Passage, shown: Result<Begun, Halt>, ended: bool, body: &mut Body) -> Result<Head, Halt> {
    if shown? == Begun::Waits {
        beside_upload(passage.go_on_with_head(ended), body).await?;
    }
    if !passage.follows() {
        return passage.into_head().map_err(Halt::Fault);
    }
    let mut filtered = Box::new(Filtered::new(passage, std::mem::take(body)));
    filtered.until_head_is_out().await?;
    let head = filtered.head().map_err(Halt::Fault)?;
    *body = Body::filtered(filtered);
    Ok(head)
}

/// Runs work that may suspend, and goes on with the upload that a response came before the end of: a filter that has
/// suspended itself in the one direction may be what the other waits for.
async fn beside_upload<T>(work: impl Future<Output = T>, body: &mut Body) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            body.poll_upload(cx);
        }
        polled
    })
    .await
}
