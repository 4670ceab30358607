#include "rehearsal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "event.h"
#include "root.h"

#define PAGE ROOT_PATH "/etc/passwd" /* the base has one where the image has none */

enum { WAIT_MS = 3000, REQUEST_MAX_BYTES = 4096 };

static int listen_anywhere(int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, 1) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        return -1;
    *port = ntohs(address.sin_port);
    return fd;
}

/* Waits for a descriptor as servers do. */
static int wait_readable(int poller, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
        return -1;
    int count = epoll_wait(poller, &event, 1, WAIT_MS);
    epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
    if (count == 0)
        errno = ETIMEDOUT;
    return count == 1 ? 0 : -1;
}

static int answer(int poller, int client)
{
    static const char head[] = "HTTP/1.0 200 OK\r\n\r\n";
    char request[REQUEST_MAX_BYTES];
    struct stat status;
    if (wait_readable(poller, client) < 0 || recv(client, request, sizeof request, 0) < 0)
        return -1;
    int page = open(PAGE, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* whatever the image has there */
    int failed = page < 0 || fstat(page, &status) < 0 || send(client, head, sizeof head - 1, MSG_NOSIGNAL) < 0 ||
                 sendfile(client, page, NULL, (size_t)status.st_size) < 0 || shutdown(client, SHUT_WR) < 0;
    int saved = errno;
    close(page);
    errno = saved;
    return failed ? -1 : 0;
}

void rehearsal_serve(void)
{
    int port, client = -1;
    int poller = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_anywhere(&port);
    if (listener >= 0) {
        event_number("rehearsing", port);
        if (wait_readable(poller, listener) == 0)
            client = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    }
    if (client < 0 || answer(poller, client) < 0)
        log_line("rehearsing: %m");
    close(client);
    close(listener);
    close(poller);
}
