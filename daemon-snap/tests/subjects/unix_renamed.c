/* A listener whose path was renamed after bind(2), as programs do that replace a socket at once. */
#include "rights.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sockaddr_un address = {.sun_family = AF_UNIX}, seen, now_at;
    strcpy(address.sun_path, in_shm("socket.new"));
    now_at = address;
    strcpy(now_at.sun_path, in_shm("socket"));
    int listener = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(bind(listener, (void *)&address, sizeof address));
    SYS(chmod(address.sun_path, 0640));
    SYS(chown(address.sun_path, 12, 34));
    SYS(rename(address.sun_path, now_at.sun_path));
    SYS(listen(listener, 5));
    subject_hold();
    socklen_t len = sizeof seen;
    SYS(getsockname(listener, (void *)&seen, &len));
    CHECK(strcmp(seen.sun_path, address.sun_path) == 0, "bound to %s", seen.sun_path);
    CHECK(access(address.sun_path, F_OK) < 0, "the old name is there");
    struct stat stat_now;
    SYS(stat(now_at.sun_path, &stat_now));
    CHECK(stat_now.st_uid == 12 && stat_now.st_gid == 34 && (stat_now.st_mode & 0777) == 0640, "owner or mode");
    int client = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(connect(client, (void *)&now_at, sizeof now_at));
    SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    subject_pass();
}
