/* A socketmap client that asks as Postfix does: one request in flight on each connection.
 *
 *   loadgen -s SOCKET -k KEYFILE -c CONNECTIONS {-d SECONDS | -n REQUESTS} [-p PID] [-m MAP]
 *
 * All connections take their keys in turn from one cursor, so that with -n as large as the number
 * of keys each key is asked for exactly once. Prints one line of JSON: times in microseconds, the
 * CPU of process PID (all its threads) in seconds, and replies by their first word.
 * Exit 1 when a connection was lost or answered with anything but one netstring, or when there
 * was no reply to be had for QUIET_S seconds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_REPLY 131072
#define MAX_LINE 1024
#define MAX_EVENTS 512
#define QUIET_S 30

struct connection {
    int fd;
    uint64_t asked_at;
    size_t have;
    char *reply;
};

struct request {
    char *text;
    size_t size;
};

static struct request *requests;
static size_t n_requests, cursor, goal, asked, lost;
static uint32_t *times; /* nanoseconds; four seconds stand for anything longer */
static size_t n_times, room;
static const char *const words[] = {"OK", "NOTFOUND", "TEMP", "PERM", "other"};
#define N_WORDS (sizeof words / sizeof *words)
static size_t counts[N_WORDS];

static void die(const char *what) {
    perror(what);
    exit(2);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void load_requests(const char *path, const char *map) {
    FILE *file = fopen(path, "r");
    char line[MAX_LINE];
    size_t space = 0;
    if (!file) die(path);
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = 0;
        if (!*line) continue;
        if (n_requests == space) {
            space = space ? 2 * space : 1024;
            requests = realloc(requests, space * sizeof *requests);
        }
        struct request *r = &requests[n_requests++];
        int size = asprintf(&r->text, "%zu:%s %s,", strlen(map) + 1 + strlen(line), map, line);
        if (size < 0) die("asprintf");
        r->size = (size_t)size;
    }
    fclose(file);
    if (!n_requests) die("no keys");
}

static int dial(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) die("socket");
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    /* EAGAIN: the listener's backlog is full, which a herd brings about. */
    for (int tries = 0; connect(fd, (void *)&address, sizeof address); tries++) {
        if (errno != EAGAIN || tries == 2000) die(path);
        usleep(1000);
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void ask(struct connection *c) {
    if (goal && asked == goal) return;
    struct request *r = &requests[cursor++ % n_requests];
    asked++;
    c->asked_at = now_ns();
    c->have = 0;
    if (write(c->fd, r->text, r->size) != (ssize_t)r->size) die("write");
}

static void note(uint64_t took, const char *payload, size_t size) {
    if (n_times == room) {
        room = room ? 2 * room : 1 << 20;
        times = realloc(times, room * sizeof *times);
        if (!times) die("realloc");
    }
    times[n_times++] = took > 4000000000u ? 4000000000u : (uint32_t)took;
    size_t w = 0;
    while (w < N_WORDS - 1) {
        size_t l = strlen(words[w]);
        if (size >= l && !memcmp(payload, words[w], l) && (size == l || payload[l] == ' ')) break;
        w++;
    }
    counts[w]++;
}

/* 1: a whole reply came; 0: more is to come; -1: the connection is lost, or that is no reply. */
static int take(struct connection *c) {
    ssize_t got = read(c->fd, c->reply + c->have, MAX_REPLY - c->have);
    size_t size = 0, i = 0;
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (got <= 0) return -1;
    c->have += (size_t)got;
    for (; i < c->have && c->reply[i] >= '0' && c->reply[i] <= '9'; i++)
        size = 10 * size + (size_t)(c->reply[i] - '0');
    if (i == c->have) return 0;
    if (!i || c->reply[i] != ':' || size > 100000) return -1;
    if (c->have < i + size + 2) return 0;
    if (c->reply[i + 1 + size] != ',' || c->have != i + size + 2) return -1;
    note(now_ns() - c->asked_at, c->reply + i + 1, size);
    return 1;
}

/* What process `pid` has used of the CPU, in seconds. */
static double cpu_of(int pid) {
    char path[64], text[1024];
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = pid ? fopen(path, "r") : NULL;
    if (!file) return 0;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    char *rest = strrchr(text, ')'); /* a process may have any name */
    if (rest)
        sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(double q) {
    if (!n_times) return 0;
    size_t i = (size_t)(q * (double)n_times);
    return times[i < n_times ? i : n_times - 1] / 1e3;
}

static void report(double wall, double cpu) {
    struct rusage own;
    getrusage(RUSAGE_SELF, &own);
    double client = (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec) +
                    (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec) / 1e6;
    qsort(times, n_times, sizeof *times, by_size);
    printf("{\"requests\":%zu,\"wall_s\":%.4f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,"
           "\"cpu_s\":%.2f,\"client_cpu_s\":%.2f,\"lost\":%zu,\"replies\":{",
           n_times, wall, percentile(.5), percentile(.99), percentile(.999), percentile(1), cpu,
           client, lost);
    for (size_t w = 0; w < N_WORDS; w++)
        printf("%s\"%s\":%zu", w ? "," : "", words[w], counts[w]);
    printf("}}\n");
}

/* Until the goal or the end; false when nothing came any more. */
static int run(int ep, size_t open, uint64_t end) {
    struct epoll_event events[MAX_EVENTS];
    uint64_t heard = now_ns();
    while (open && (goal ? n_times + lost < goal : now_ns() < end)) {
        int n = epoll_wait(ep, events, MAX_EVENTS, 100);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            int what = take(c);
            if (what > 0) {
                ask(c);
            } else if (what < 0) {
                lost++;
                open--;
                close(c->fd);
            }
        }
        if (n > 0) heard = now_ns();
        if (now_ns() - heard > QUIET_S * 1000000000ull) return 0;
    }
    return open > 0;
}

int main(int argc, char **argv) {
    const char *path = NULL, *map = "postfix", *keys = NULL;
    size_t n_connections = 1;
    int pid = 0, option;
    double seconds = 3;
    while ((option = getopt(argc, argv, "s:m:k:c:d:n:p:")) != -1) switch (option) {
        case 's': path = optarg; break;
        case 'm': map = optarg; break;
        case 'k': keys = optarg; break;
        case 'c': n_connections = strtoul(optarg, NULL, 10); break;
        case 'd': seconds = atof(optarg); break;
        case 'n': goal = strtoul(optarg, NULL, 10); break;
        case 'p': pid = atoi(optarg); break;
        default: return 2;
        }
    if (!path || !keys || !n_connections) {
        fprintf(stderr, "usage: see the head of loadgen.c\n");
        return 2;
    }
    load_requests(keys, map);
    struct connection *all = calloc(n_connections, sizeof *all);
    int ep = epoll_create1(0);
    for (size_t i = 0; i < n_connections; i++) {
        all[i].fd = dial(path);
        all[i].reply = malloc(MAX_REPLY);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        if (epoll_ctl(ep, EPOLL_CTL_ADD, all[i].fd, &event)) die("epoll_ctl");
    }
    double cpu = cpu_of(pid);
    uint64_t start = now_ns();
    for (size_t i = 0; i < n_connections; i++) ask(&all[i]);
    int heard = run(ep, n_connections, start + (uint64_t)(seconds * 1e9));
    report((double)(now_ns() - start) / 1e9, cpu_of(pid) - cpu);
    if (!heard) fprintf(stderr, "loadgen: no reply for %d s, or all connections lost\n", QUIET_S);
    return lost || !heard;
}
