/* A listener between virtual machine and host keeps its port and options. */
#include "subject.h"
#include <linux/vm_sockets.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 && errno == EAFNOSUPPORT)
        subject_skip("no vsock here");
    SYS(fd);
    int idle = SYS(socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0));
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_port = VMADDR_PORT_ANY, .svm_cid = VMADDR_CID_ANY}, seen;
    socklen_t len = sizeof address;
    uint64_t size = 65536, now = 0;
    SYS(setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &size, sizeof size));
    SYS(bind(fd, (void *)&address, sizeof address));
    SYS(listen(fd, 9));
    SYS(getsockname(fd, (void *)&address, &len));
    subject_hold();
    len = sizeof seen;
    SYS(getsockname(fd, (void *)&seen, &len));
    CHECK_EQ(seen.svm_port, address.svm_port);
    CHECK_EQ(seen.svm_cid, address.svm_cid);
    len = sizeof now;
    SYS(getsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &now, &len));
    CHECK_EQ(now, size);
    CHECK(accept(fd, NULL, NULL) < 0 && errno == EAGAIN, "accept: %s", strerror(errno));
    len = sizeof seen;
    SYS(getsockname(idle, (void *)&seen, &len));
    CHECK_EQ(seen.svm_port, VMADDR_PORT_ANY);
    subject_pass();
}
