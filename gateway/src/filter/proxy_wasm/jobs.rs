//! What a VM has under way beside exchanges: its timers, messages in queues, and calls of its own.

use super::{
    answers::{self, CLOSED_BY_STATUS, Ended, NO_ROOM, NO_STATUS},
    callouts,
    queues::Queue,
    state::Outside,
    vm::{Entered, Machine, Vm},
};
use crate::filter::{
    CallError,
    outbound::{Collected, OpenCall, Received},
    share::Held,
};
use bytes::BytesMut;
use http::{HeaderMap, Response};
use std::{
    rc::{Rc, Weak},
    time::Instant,
};
use tokio::sync::{mpsc, oneshot};

/// A call that is answered once.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unary {
    Http,
    Grpc,
}

/// Has a VM's timers kept from now on.
pub(super) fn keep_time(outside: &Outside) {
    let Some(vm) = outside.vm.upgrade() else { return };
    if vm.has_timekeeper.replace(true) {
        vm.timers.notify_one();
        return;
    }
    let (weak, timers) = (Weak::clone(&outside.vm), Rc::clone(&vm.timers));
    outside.worker.agenda.add(async move {
        loop {
            let next = weak.upgrade().map(|vm| vm.next_tick());
            match next {
                None => return,
                Some(None) => timers.notified().await,
                Some(Some(next)) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(next.into()) => {}
                        () = timers.notified() => continue,
                    }
                }
            }
            if let Some(vm) = weak.upgrade() {
                vm.tick(Instant::now());
            }
        }
    });
}

/// Has a VM told of messages in a queue.
pub(super) fn listen(outside: &Outside, queue: &Queue, root: u32) {
    // One that waits is enough: whoever is told takes what there is.
    let (listener, mut told) = mpsc::channel(1);
    queue.listen(listener);
    let (vm, number) = (Weak::clone(&outside.vm), Some(outside.number));
    outside.worker.agenda.add(async move {
        while let Some(queue) = told.recv().await {
            let Some(vm) = vm.upgrade().filter(|vm| vm.number() == number) else { return };
            let called = vm.enter_now(root, |Machine { store, guest, .. }| match &guest.queue_ready {
                Some(ready) => ready.call(store, (root, queue)),
                None => Ok(()),
            });
            if !matches!(called, Some(Ok(()))) {
                return;
            }
        }
    });
}

/// Has a VM told of the answer to a call.
pub(super) fn hear(
    outside: &Outside,
    (id, unary): (u32, Unary),
    answered: oneshot::Receiver<Result<Response<Collected>, CallError>>,
    given_up: oneshot::Receiver<()>,
    budget: OpenCall,
) {
    let vm = Weak::clone(&outside.vm);
    outside.worker.agenda.add(async move {
        // A machine that failed has given up all of its calls; the next one begins to count anew.
        let answer = tokio::select! {
            biased;
            _ = given_up => return,
            answer = answered => answer.unwrap_or(Err(CallError::Protocol)),
        };
        drop(budget);
        let Some(vm) = vm.upgrade() else { return };
        if answer.is_err() {
            vm.call_failed();
        }
        // What fails there is counted and logged with the machine.
        let _failed = match unary {
            Unary::Http => vm.call(id, |machine| machine.http_answered(id, answer)),
            Unary::Grpc => vm.call(id, |machine| machine.grpc_answered(id, answer)),
        };
    });
}

/// Has a VM told of what comes on a stream of gRPC.
pub(super) fn hear_stream(
    outside: &Outside,
    id: u32,
    mut events: mpsc::Receiver<Received>,
    mut given_up: oneshot::Receiver<()>,
    (budget, mut held): (OpenCall, Held),
) {
    let vm = Weak::clone(&outside.vm);
    outside.worker.agenda.add(async move {
        let _budget = budget;
        let (mut received, mut last) = (BytesMut::new(), HeaderMap::new());
        loop {
            let event = tokio::select! {
                biased;
                _ = &mut given_up => return,
                event = events.recv() => event.unwrap_or(Received::Failed(CallError::Protocol)),
            };
            let Some(vm) = vm.upgrade() else { return };
            if let Received::Trailers(trailers) = &event {
                last.clone_from(trailers);
            }
            let heard = match event {
                Received::Head(head) if head.status != http::StatusCode::OK => Err(CLOSED_BY_STATUS),
                // A stream that ends with its head says so there: then all of it is trailing metadata.
                Received::Head(head) if callouts::grpc_status(&head.headers).is_some() => {
                    last.clone_from(&head.headers);
                    let heard = vm.call(id, |machine| machine.grpc_initial(id, HeaderMap::new()));
                    Ok(heard.and_then(|_| vm.call(id, |machine| machine.grpc_trailing(id, head.headers))))
                }
                Received::Head(head) => Ok(vm.call(id, |machine| machine.grpc_initial(id, head.headers))),
                Received::Data(data) => {
                    received.extend_from_slice(&data);
                    let heard = heard(&vm, id, &mut received);
                    heard.and_then(|heard| held.resize(received.len()).map(|()| heard).map_err(|_| NO_ROOM))
                }
                Received::Trailers(trailers) => Ok(vm.call(id, |machine| machine.grpc_trailing(id, trailers))),
                Received::Ended => Err(callouts::grpc_status(&last).map_or(NO_STATUS, |(code, text)| (code, text.into()))),
                Received::Failed(error) => {
                    vm.call_failed();
                    Err(answers::failure(error))
                }
            };
            match heard {
                Ok(Some(Ok(()))) => {}
                Ok(_) => return,
                Err((code, text)) => {
                    let _failed = vm.call(id, |machine| machine.grpc_closed(id, code, text.into_owned()));
                    return;
                }
            }
        }
    });
}

/// What a call into a VM came to; none where there was nothing to call.
type Heard = Option<Entered<()>>;

/// Hands over the messages that have become whole.
fn heard(vm: &Vm, id: u32, received: &mut BytesMut) -> Result<Heard, Ended> {
    let limit = vm.call_bytes();
    loop {
        match callouts::unframe(received, limit) {
            Ok(None) => return Ok(Some(Ok(()))),
            Ok(Some(message)) => match vm.call(id, |machine| machine.grpc_received(id, message)) {
                Some(Ok(())) => {}
                ended => return Ok(ended),
            },
            Err(callouts::Unframed::Compressed) => return Err((answers::INTERNAL, "a message was compressed".into())),
            Err(callouts::Unframed::TooLarge) => {
                return Err((answers::RESOURCE_EXHAUSTED, "a message was larger than filter_call_bytes".into()));
            }
        }
    }
}
