//! Rings of io_uring.

use nix::errno::Errno;

coded! {
    /// A ring that cannot be set up again as it is.
    RingObstacle {
        "ring-untold" stays Untold: "an io_uring ring of which this kernel does not tell the state";
        "ring-polling-thread" stays PollingThread:
            "an io_uring ring with a polling thread (IORING_SETUP_SQPOLL)";
        "ring-registered-files" stays RegisteredFiles: "an io_uring ring with registered files";
        "ring-registered-buffers" stays RegisteredBuffers: "an io_uring ring with registered buffers";
        "ring-registered-credentials" stays RegisteredCredentials:
            "an io_uring ring with registered credentials";
        "ring-registered-eventfd" stays RegisteredEventfd:
            "an io_uring ring with a registered event descriptor";
        "ring-in-use" passes InUse: "an io_uring ring with requests in flight";
        "ring-overflown" stays Overflown: "an io_uring ring with more completions than it has room for";
        "ring-too-many-turns" stays TooManyTurns { turns: u32 }:
            "an io_uring ring that has served {turns} requests: too many to repeat";
        "ring-not-enabled" stays NotEnabled: "an io_uring ring that is not enabled yet";
        "ring-single-thread" stays SingleThread:
            "an io_uring ring for a single thread (IORING_SETUP_SINGLE_ISSUER)";
        "ring-restricted" stays Restricted: "an io_uring ring with restrictions";
        "ring-odd-answer" stays OddAnswer { errno: Errno }:
            "an io_uring ring that answers a question with {errno}";
        "ring-size-differs" stays SizeDiffers: "an io_uring ring whose memory is not what its size tells";
        "ring-layout" stays Layout:
            "an io_uring ring laid out in a way that is not known, or with a failure noted in it";
        "ring-uneven-requests" stays UnevenRequests:
            "an io_uring ring whose requests complete more than once, never, or into provided buffers";
        "ring-long-entries" stays LongEntries: "an io_uring ring with long requests or completions";
        "ring-number-closed" stays NumberOfClosed { number: u32 }:
            "an io_uring ring registered under number {number}, of which no descriptor is open";
    }
}
