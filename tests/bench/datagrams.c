/* Sends datagrams to a unix socket, in turn from a file of them.
 *
 *   datagrams -s SOCKET -f FILE -n COUNT [-r RATE]
 *
 * FILE: for each datagram its length in four octets, big-endian, then the datagram. Without -r one
 * socket sends as fast as the receiver takes, waiting where its queue is full. With -r each is sent
 * as libtlsrpt does it (a socket of its own, non-blocking, one sendto, close), RATE a second evenly
 * spaced; a sender that was held up does not catch up, as that would be another rate. What the
 * kernel refuses is lost. Prints one line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct datagram {
    char *octets;
    uint32_t size;
};

static struct datagram *datagrams;
static size_t n_datagrams;

static void die(const char *what) {
    perror(what);
    exit(2);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void load(const char *path) {
    FILE *file = fopen(path, "rb");
    uint32_t size;
    if (!file) die(path);
    while (fread(&size, sizeof size, 1, file) == 1) {
        struct datagram *d;
        datagrams = realloc(datagrams, (n_datagrams + 1) * sizeof *datagrams);
        if (!datagrams) die("memory");
        d = &datagrams[n_datagrams++];
        d->size = ntohl(size);
        d->octets = malloc(d->size + 1);
        if (!d->octets) die("memory");
        if (fread(d->octets, 1, d->size, file) != d->size) die("datagrams");
    }
    fclose(file);
    if (!n_datagrams) die("no datagrams");
}

static int new_socket(int flags) {
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0) die("socket");
    return fd;
}

int main(int argc, char **argv) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    const char *path = NULL, *file = NULL;
    long count = 0, lost = 0;
    double rate = 0;
    uint64_t began, due, gap;
    int option, fd = -1;

    while ((option = getopt(argc, argv, "s:f:n:r:")) != -1) {
        if (option == 's') path = optarg;
        else if (option == 'f') file = optarg;
        else if (option == 'n') count = atol(optarg);
        else if (option == 'r') rate = atof(optarg);
        else return 2;
    }
    if (!path || !file || count <= 0 || strlen(path) >= sizeof to.sun_path) return 2;
    strcpy(to.sun_path, path);
    load(file);
    gap = rate > 0 ? (uint64_t)(1e9 / rate) : 0;
    if (!gap) fd = new_socket(0);
    due = began = now_ns();
    for (long i = 0; i < count; i++) {
        struct datagram *d = &datagrams[(size_t)i % n_datagrams];
        uint64_t now;
        if (gap) {
            while ((now = now_ns()) < due) {}
            due = now > due + gap ? now + gap : due + gap;
            fd = new_socket(SOCK_NONBLOCK);
        }
        if (sendto(fd, d->octets, d->size, 0, (struct sockaddr *)&to, sizeof to) < 0) {
            if (!gap || (errno != EAGAIN && errno != EWOULDBLOCK)) die("sendto");
            lost++;
        }
        if (gap) close(fd);
    }
    printf("{\"sent\": %ld, \"lost\": %ld, \"wall_s\": %.6f}\n", count, lost,
           (double)(now_ns() - began) / 1e9);
    return 0;
}
