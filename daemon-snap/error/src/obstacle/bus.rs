//! Connections to the system bus.

use image_store::StaleReason;

coded! {
    /// A connection to the system bus that cannot be made again as it is.
    BusObstacle {
        "bus-unsent" passes Unsent: "a D-Bus connection with unsent messages (unread by the bus)";
        "bus-unread-many" passes UnreadMany { len_bytes: usize }:
            "a D-Bus connection with unread messages ({len_bytes} bytes)";
        "bus-unread-moving" passes UnreadMoving: "a D-Bus connection with unread messages that come and go";
        "bus-unread-descriptors" passes UnreadDescriptors:
            "a D-Bus connection with unread messages that carry descriptors";
        "bus-unread-half" passes UnreadHalf: "a D-Bus connection with unread messages, one of them half read";
        "bus-unread-call" passes UnreadCall: "a D-Bus connection with unread messages, a call among them";
        "bus-unread-nameless" passes UnreadNameless:
            "a D-Bus connection with unread messages that do not tell its name";
        "bus-unread-orphan" passes UnreadOrphan:
            "a D-Bus connection with unread messages, made by a process that is gone";
        "bus-unread-late" passes UnreadLate: "a D-Bus connection with unread messages that have just come";
        "bus-call-in-progress" passes CallInProgress { call: String }: "a D-Bus call in progress ({call})";
        "bus-rules-unseen" stays RulesUnseen:
            "a D-Bus connection whose match rules were not seen (take it with a restart)";
        "bus-name-unseen" stays NameUnseen { name: String }:
            "a D-Bus connection that asked for {name} before it was watched (take it with a restart)";
        "bus-unheard" stays Unheard { why: StaleReason }:
            "a D-Bus connection, and the bus cannot be listened to: {why}";
        "bus-socket-bound" stays BoundSocket:
            "a unix socket bound to a path and connected to the system bus";
        "bus-under-apparmor" stays UnderAppArmor: "a bus connection under an AppArmor profile";
    }
}
