//! What the service counts.

pub(super) use crate::slowpath::counters::count;
use crate::slowpath::counters::counters;

counters! {
    /// TCP connections that were opened.
    connections,
    /// SYNs that found no room.
    connections_refused,
    /// Half-open connections that made room for a newer one.
    connections_evicted,
    /// Answers with 2xx.
    requests_2xx,
    /// Answers with 3xx.
    requests_3xx,
    /// Answers with 4xx.
    requests_4xx,
    /// Answers with 5xx.
    requests_5xx,
    /// What was no HTTP; hyper has answered it, or could not.
    requests_malformed,
    /// Requests that were given to Nova.
    proxied,
    /// Requests that Nova failed at: 502 and 504.
    proxy_failed,
    /// IMDSv2 tokens that were given out.
    tokens_issued,
    /// Requests with a token that is not the guest's, or no longer.
    tokens_refused,
    /// Half-open connections, and those whose guest was gone.
    timeouts_tcp,
    /// Guests whose connections all ended because the TCP stack panicked over one of their frames: a defect to be reported.
    stack_failures,
    /// Requests whose header did not come in time.
    timeouts_header,
    /// Requests that were not answered in time.
    timeouts_request,
    /// Answers that the guest did not take.
    timeouts_answer,
    /// Connections without a request.
    timeouts_idle,
    /// Frames that were taken in.
    frames_received,
    /// Frames that were sent.
    frames_sent,
    /// Dropped: from a port without a guest.
    dropped_unknown_guest,
    /// Dropped: not an IP packet that a host may take in, or longer than any that we ask for.
    dropped_malformed,
    /// Dropped: not TCP to port 80 of the service, or from an impossible source.
    dropped_not_ours,
    /// Dropped: too many frames of the guest wait.
    dropped_queue_full,
    /// Dropped: too many bytes wait in total.
    dropped_memory,
    /// Dropped: too many guests at once.
    dropped_guests,
}
