//! One message and its answer (RFC 8415, 16 and 18.3), between the headers.

use std::net::Ipv6Addr;

use arrayvec::ArrayVec;

use super::{Answered, Lease, MAX_ASSOCIATIONS, Refused};
use crate::wire::dhcp6::{Association, Kind, MAX_DUID, Message, Options, Status, Writer, option};

/// The shortest DUID: its type and an octet (RFC 8415, 11.1).
const MIN_DUID: usize = 3;
/// Flags of the option with the client's name (RFC 4704, 4.1): the server does its updates; it was asked to and does not; it
/// does none.
const FQDN_SERVER: u8 = 1;
const FQDN_OVERRIDDEN: u8 = 2;
const FQDN_NONE: u8 = 4;

/// An identity association and the code of its kind.
type Associations<'a> = ArrayVec<(u16, Association<'a>), MAX_ASSOCIATIONS>;

/// A message that section 16 allows.
struct Request<'a> {
    kind: Kind,
    transaction: [u8; 3],
    options: Options<'a>,
    client_id: Option<&'a [u8]>,
    associations: Associations<'a>,
    /// What the client asks for; nothing: it does not say.
    requested: Option<&'a [[u8; 2]]>,
}

/// Writes the answer to a message.
pub(super) fn answer(
    message: &Message<'_>,
    lease: &Lease,
    is_unicast: bool,
    writer: &mut Writer<'_>,
) -> Result<Answered, Refused> {
    let request = Request::new(message, lease)?;
    let answered = |reply, status| Answered { request: request.kind, reply, status, relayed: false };
    if is_unicast {
        let heeds = matches!(request.kind, Kind::Request | Kind::Renew | Kind::Release | Kind::Decline);
        if !heeds {
            return Err(Refused::Unicast);
        }
        request.begin(Kind::Reply, lease, writer);
        writer.status(Status::UseMulticast);
        return Ok(answered(Kind::Reply, Status::UseMulticast));
    }
    let is_rapid = request.kind == Kind::Solicit && request.options.get(option::RAPID_COMMIT).is_some();
    let reply = if request.kind == Kind::Solicit && !is_rapid { Kind::Advertise } else { Kind::Reply };
    let status = match request.kind {
        Kind::Solicit | Kind::Request | Kind::Renew | Kind::Rebind => {
            request.begin(reply, lease, writer);
            if is_rapid {
                writer.option(option::RAPID_COMMIT, &[]);
            }
            let status = request.assign(lease, writer);
            request.inform(lease, writer);
            status
        }
        Kind::Confirm => {
            let status = request.confirm(lease)?;
            request.begin(reply, lease, writer);
            writer.status(status);
            status
        }
        Kind::Release | Kind::Decline => {
            request.begin(reply, lease, writer);
            writer.status(Status::Success);
            request.give_back(lease, writer);
            Status::Success
        }
        _ => {
            request.begin(reply, lease, writer);
            request.inform(lease, writer);
            Status::Success
        }
    };
    Ok(answered(reply, status))
}

impl<'a> Request<'a> {
    fn new(message: &Message<'a>, lease: &Lease) -> Result<Request<'a>, Refused> {
        let kind = Kind::from_number(message.number).ok_or(Refused::NotARequest)?;
        let options = message.options;
        let (client_id, server_id) = (options.get(option::CLIENT_ID), options.get(option::SERVER_ID));
        if client_id.is_some_and(|id| !(MIN_DUID..=MAX_DUID).contains(&id.len())) {
            return Err(Refused::Malformed);
        }
        let associations = associations(&options)?;
        // RFC 8415, 16.2 to 16.12.
        let (is_sound, is_for_one) = match kind {
            Kind::Solicit | Kind::Confirm | Kind::Rebind => {
                (client_id.is_some() && server_id.is_none(), false)
            }
            Kind::Request | Kind::Renew | Kind::Release | Kind::Decline => {
                (client_id.is_some() && server_id.is_some(), true)
            }
            Kind::InformationRequest => (associations.is_empty(), server_id.is_some()),
            _ => return Err(Refused::NotARequest),
        };
        if !is_sound {
            return Err(Refused::Invalid);
        }
        if is_for_one && server_id != Some(&lease.server_id) {
            return Err(Refused::OtherServer);
        }
        let requested = match options.get(option::REQUESTED).map(<[u8]>::as_chunks::<2>) {
            Some((codes, [])) => Some(codes),
            Some(_) => return Err(Refused::Malformed),
            None => None,
        };
        Ok(Request { kind, transaction: message.transaction, options, client_id, associations, requested })
    }

    /// What every answer begins with.
    fn begin(&self, reply: Kind, lease: &Lease, writer: &mut Writer<'_>) {
        writer.raw(&[reply.number()]);
        writer.raw(&self.transaction);
        writer.option(option::SERVER_ID, &lease.server_id);
        if let Some(id) = self.client_id {
            writer.option(option::CLIENT_ID, id);
        }
    }

    /// Each identity association with what it gets (18.3.1, 18.3.2, 18.3.4, 18.3.5, 18.3.9); gives the first one's status.
    fn assign(&self, lease: &Lease, writer: &mut Writer<'_>) -> Status {
        let mut first = true;
        let mut result = None;
        for (code, association) in &self.associations {
            let gets_it = *code == option::IA_NA && std::mem::take(&mut first);
            let status = if gets_it { self.status(association, lease) } else { self.refusal(*code) };
            result = result.or(Some(status));
            if status != Status::Success {
                refuse((*code, association), status, writer);
                continue;
            }
            writer.nested(*code, |writer| {
                let (t1, t2) = times(lease.lifetime);
                writer.raw(&association.id);
                writer.raw(&t1.to_be_bytes());
                writer.raw(&t2.to_be_bytes());
                for ip in &lease.addresses {
                    address(*ip, lease.lifetime, writer);
                }
                if matches!(self.kind, Kind::Renew | Kind::Rebind) {
                    let held = association.addresses().flatten();
                    held.filter(|ip| !lease.addresses.contains(ip)).for_each(|ip| address(ip, 0, writer));
                }
            });
        }
        result.unwrap_or(Status::Success)
    }

    /// Whether the association that the addresses are for gets them.
    fn status(&self, association: &Association<'_>, lease: &Lease) -> Status {
        if lease.addresses.is_empty() {
            return self.refusal(option::IA_NA);
        }
        let mut held = association.addresses().flatten();
        if self.kind == Kind::Request && held.any(|ip| !lease.addresses.contains(&ip)) {
            return Status::NotOnLink;
        }
        Status::Success
    }

    /// What an association is told that gets nothing.
    fn refusal(&self, code: u16) -> Status {
        match (self.kind, code) {
            (Kind::Renew | Kind::Rebind, _) => Status::NoBinding,
            (_, option::IA_PD) => Status::NoPrefixAvail,
            _ => Status::NoAddrsAvail,
        }
    }

    /// Whether the client's addresses are still right where it is (18.3.3).
    fn confirm(&self, lease: &Lease) -> Result<Status, Refused> {
        let mut held = self.addresses().peekable();
        if lease.addresses.is_empty() || held.peek().is_none() {
            return Err(Refused::Nothing);
        }
        Ok(if held.all(|ip| lease.addresses.contains(&ip)) { Status::Success } else { Status::NotOnLink })
    }

    /// Associations that are not the port's (18.3.7, 18.3.8). What is the port's stays so: it is configured.
    fn give_back(&self, lease: &Lease, writer: &mut Writer<'_>) {
        for (code, association) in &self.associations {
            let is_bound = association.addresses().flatten().any(|ip| lease.addresses.contains(&ip));
            if !is_bound || *code != option::IA_NA {
                refuse((*code, association), Status::NoBinding, writer);
            }
        }
    }

    /// Options that the client wants.
    fn inform(&self, lease: &Lease, writer: &mut Writer<'_>) {
        let wants = |code: u16| self.requested.is_none_or(|codes| codes.contains(&code.to_be_bytes()));
        for opt in &lease.options {
            let fits = opt.code != option::INFORMATION_REFRESH || self.kind == Kind::InformationRequest;
            if fits && wants(opt.code) {
                writer.option(opt.code, &opt.value);
            }
        }
        // RFC 4704, 6: only to who has it and asks for it. There are no updates.
        if self.requested.is_some()
            && wants(option::FQDN)
            && let Some([flags, name @ ..]) = self.options.get(option::FQDN)
        {
            let overridden = if flags & FQDN_SERVER != 0 { FQDN_OVERRIDDEN } else { 0 };
            writer.nested(option::FQDN, |writer| {
                writer.raw(&[FQDN_NONE | overridden]);
                writer.raw(name);
            });
        }
    }

    fn addresses(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.associations.iter().flat_map(|(_, association)| association.addresses().flatten())
    }
}

/// All identity associations, down to their addresses.
fn associations<'a>(options: &Options<'a>) -> Result<Associations<'a>, Refused> {
    let mut found = Associations::new();
    for (code, value) in options.iter() {
        if matches!(code, option::IA_NA | option::IA_TA | option::IA_PD) {
            let association = Association::new_checked(code, value)?;
            association.addresses().try_for_each(|address| address.map(|_| ()))?;
            found.try_push((code, association)).map_err(|_| Refused::Limit)?;
        }
    }
    Ok(found)
}

/// An association without addresses, and why.
fn refuse((code, association): (u16, &Association<'_>), status: Status, writer: &mut Writer<'_>) {
    writer.nested(code, |writer| {
        writer.raw(&association.id);
        if code != option::IA_TA {
            writer.raw(&[0; 8]);
        }
        writer.status(status);
    });
}

/// An address with both its lifetimes (RFC 8415, 21.6).
fn address(ip: Ipv6Addr, lifetime: u32, writer: &mut Writer<'_>) {
    writer.nested(option::IA_ADDRESS, |writer| {
        writer.raw(&ip.octets());
        writer.raw(&lifetime.to_be_bytes());
        writer.raw(&lifetime.to_be_bytes());
    });
}

/// T1 and T2: half and four fifths of the lifetime (RFC 8415, 21.4); of one without an end, never.
fn times(lifetime: u32) -> (u32, u32) {
    if lifetime == u32::MAX { (u32::MAX, u32::MAX) } else { (lifetime / 2, lifetime / 5 * 4) }
}
