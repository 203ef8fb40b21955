//! What core modules choose for the way out: the interface `upstream`.

use super::abi::{Call, Lift, case, enter, number, option, put_done, span};
use crate::filter::{
    bindings::tidegate::filter::upstream::{Alpn, TlsMode, TlsSettings, TlsVersion},
    state::State,
};
use wasmtime::{Linker, Result};

const UPSTREAM: &str = "tidegate:filter/upstream@0.1.0";

const MODES: [TlsMode; 3] = [TlsMode::Disabled, TlsMode::Simple, TlsMode::Mutual];
const VERSIONS: [TlsVersion; 2] = [TlsVersion::Tls12, TlsVersion::Tls13];
const PROTOCOLS: [Alpn; 2] = [Alpn::Http11, Alpn::H2];

pub(super) fn link(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(UPSTREAM, "select-service", select_service)?;
    linker.func_wrap(UPSTREAM, "select-endpoint", select_endpoint)?;
    linker.func_wrap(UPSTREAM, "originate-tls", originate_tls)?;
    linker.func_wrap(UPSTREAM, "inject-secret", inject_secret)?;
    Ok(())
}

fn select_service(mut call: Call<'_>, name: u32, length: u32, to: u32) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let selected = state.select_service(lift.text((name, length))?);
    put_done(&mut call, to, selected.map_err(|error| error as u8))
}

fn select_endpoint(mut call: Call<'_>, address: u32, length: u32, port: u32, to: u32) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    // Of wider numbers the lower bits count.
    let selected = state.select_endpoint(lift.text((address, length))?, port as u16);
    put_done(&mut call, to, selected.map_err(|error| error as u8))
}

#[expect(clippy::too_many_arguments, reason = "they are the contract's, each number by itself")]
fn inject_secret(
    mut call: Call<'_>,
    header: u32,
    header_length: u32,
    credential: u32,
    credential_length: u32,
    prefix: u32,
    prefix_length: u32,
    to: u32,
) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let (header, credential) = (lift.text((header, header_length))?, lift.text((credential, credential_length))?);
    let injected = state.inject_secret(header, credential, lift.text((prefix, prefix_length))?);
    put_done(&mut call, to, injected.map_err(|error| error as u8))
}

/// The settings are too many for parameters, so they lie in memory.
fn originate_tls(mut call: Call<'_>, settings: u32, to: u32) -> Result<()> {
    let (mut lift, state) = enter(&mut call)?;
    let settings = tls_settings(&mut lift, settings)?;
    let originated = state.originate_tls(settings);
    put_done(&mut call, to, originated.map_err(|error| error as u8))
}

fn tls_settings(lift: &mut Lift<'_>, at: u32) -> Result<TlsSettings> {
    let record = lift.record::<68>(at, 4)?;
    Ok(TlsSettings {
        mode: one_of(&MODES, record, 0)?,
        sni: text(lift, record, 4)?,
        names: present(record, 16)?.then(|| names(lift, record, 20)).transpose()?,
        trust: text(lift, record, 28)?,
        min_version: one_of(&VERSIONS, record, 40)?,
        alpn: present(record, 44)?.then(|| protocols(lift, record, 48)).transpose()?,
        certificate: text(lift, record, 56)?,
    })
}

/// Whether a field is there that may be absent.
fn present(record: &[u8; 68], at: usize) -> Result<bool> {
    Ok(option(number(record, at) & 0xff, ())?.is_some())
}

fn one_of<T: Copy>(cases: &[T], record: &[u8; 68], at: usize) -> Result<Option<T>> {
    present(record, at)?.then(|| case(cases, number(record, at) >> 8 & 0xff)).transpose()
}

fn text(lift: &mut Lift<'_>, record: &[u8; 68], at: usize) -> Result<Option<String>> {
    present(record, at)?.then(|| lift.text(span(record, at + 4)).map(str::to_owned)).transpose()
}

fn names(lift: &mut Lift<'_>, record: &[u8; 68], at: usize) -> Result<Vec<String>> {
    lift.list::<8>(span(record, at), 4)?.iter().map(|name| lift.text(span(name, 0)).map(str::to_owned)).collect()
}

fn protocols(lift: &mut Lift<'_>, record: &[u8; 68], at: usize) -> Result<Vec<Alpn>> {
    lift.bytes(span(record, at))?.iter().map(|protocol| case(&PROTOCOLS, (*protocol).into())).collect()
}
