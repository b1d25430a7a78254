-- TLS-RPT. Days are UTC days since 1970-01-01, times seconds since 1970, wall time.

-- The policies that sessions went by. What a policy says can be long and is the same day after day,
-- so it is kept once, and found by a hash of all of it.
CREATE TABLE tls_policy (
    id      INTEGER NOT NULL PRIMARY KEY,
    digest  BLOB NOT NULL UNIQUE,
    uses    INTEGER NOT NULL,              -- rows of tally that name it
    type    TEXT NOT NULL,                 -- tlsa, sts, no-policy-found
    domain  TEXT NOT NULL,                 -- the policy's own; empty: many that are not told apart
    strings TEXT NOT NULL,                 -- JSON, a list of texts
    mx      TEXT NOT NULL                  -- JSON, a list of patterns
) STRICT;

-- A day of one recipient domain.
CREATE TABLE domain_day (
    day      INTEGER NOT NULL,
    domain   TEXT NOT NULL,
    why      TEXT,                         -- how it ended: reported, no-record, ...; NULL: not yet
    policies INTEGER NOT NULL,             -- rows of tally
    PRIMARY KEY (day, domain)
) STRICT, WITHOUT ROWID;

CREATE INDEX domain_day_waiting ON domain_day (day, domain, why) WHERE why IS NULL;

-- With more policies than are told apart, as the program has it; it cuts them.
CREATE INDEX domain_day_crowded ON domain_day (day, domain) WHERE policies > 120;

-- The counts of one policy on such a day.
CREATE TABLE tally (
    day       INTEGER NOT NULL,
    domain    TEXT NOT NULL,
    policy    INTEGER NOT NULL,            -- tls_policy.id
    successes INTEGER NOT NULL,
    failures  INTEGER NOT NULL,
    variety   INTEGER NOT NULL,            -- rows of tally_detail and tally_unjudged
    PRIMARY KEY (day, domain, policy)
) STRICT, WITHOUT ROWID;

CREATE INDEX tally_crowded ON tally (day, domain, policy) WHERE variety > 1400;

-- Failed sessions that were alike. Texts are empty where nothing is known.
CREATE TABLE tally_detail (
    day        INTEGER NOT NULL,
    domain     TEXT NOT NULL,
    policy     INTEGER NOT NULL,
    result     TEXT NOT NULL,              -- result type
    mx_host    TEXT NOT NULL,
    mx_ip      TEXT NOT NULL,
    sending_ip TEXT NOT NULL,
    reason     TEXT NOT NULL,
    helo       TEXT NOT NULL,
    more       TEXT NOT NULL,
    sessions   INTEGER NOT NULL,
    PRIMARY KEY (day, domain, policy, result, mx_host, mx_ip, sending_ip, reason, helo, more)
) STRICT, WITHOUT ROWID;

-- Sessions under a testing policy that wait for what a probe finds. Both empty: all of them;
-- else those that a log saw at this host.
CREATE TABLE tally_unjudged (
    day      INTEGER NOT NULL,
    domain   TEXT NOT NULL,
    policy   INTEGER NOT NULL,
    mx_host  TEXT NOT NULL,
    mx_ip    TEXT NOT NULL,
    sessions INTEGER NOT NULL,
    PRIMARY KEY (day, domain, policy, mx_host, mx_ip)
) STRICT, WITHOUT ROWID;

-- Counting by trigger costs nothing where a row is only added to, which is most of the time.
CREATE TRIGGER tally_begins AFTER INSERT ON tally BEGIN
    UPDATE tls_policy SET uses = uses + 1 WHERE id = new.policy;
    INSERT INTO domain_day (day, domain, why, policies) VALUES (new.day, new.domain, NULL, 1)
        ON CONFLICT (day, domain) DO UPDATE SET policies = policies + 1;
END;

CREATE TRIGGER tally_ends AFTER DELETE ON tally BEGIN
    UPDATE tls_policy SET uses = uses - 1 WHERE id = old.policy;
    DELETE FROM tls_policy WHERE id = old.policy AND uses = 0;
    UPDATE domain_day SET policies = policies - 1 WHERE day = old.day AND domain = old.domain;
END;

CREATE TRIGGER tally_detail_begins AFTER INSERT ON tally_detail BEGIN
    UPDATE tally SET variety = variety + 1
     WHERE day = new.day AND domain = new.domain AND policy = new.policy;
END;

CREATE TRIGGER tally_detail_ends AFTER DELETE ON tally_detail BEGIN
    UPDATE tally SET variety = variety - 1
     WHERE day = old.day AND domain = old.domain AND policy = old.policy;
END;

CREATE TRIGGER tally_unjudged_begins AFTER INSERT ON tally_unjudged BEGIN
    UPDATE tally SET variety = variety + 1
     WHERE day = new.day AND domain = new.domain AND policy = new.policy;
END;

CREATE TRIGGER tally_unjudged_ends AFTER DELETE ON tally_unjudged BEGIN
    UPDATE tally SET variety = variety - 1
     WHERE day = old.day AND domain = old.domain AND policy = old.policy;
END;

-- What a probe of an address of an MX host found.
CREATE TABLE finding (
    day        INTEGER NOT NULL,
    domain     TEXT NOT NULL,
    mx_host    TEXT NOT NULL,
    mx_ip      TEXT NOT NULL,
    preferred  INTEGER NOT NULL,           -- 1: of the best preference of the domain's hosts
    result     TEXT,                       -- NULL: it passed
    reason     TEXT NOT NULL,
    sending_ip TEXT NOT NULL,
    helo       TEXT NOT NULL,
    PRIMARY KEY (day, domain, mx_host, mx_ip)
) STRICT, WITHOUT ROWID;

-- The last batch taken from each source.
CREATE TABLE tally_source (
    source   TEXT NOT NULL PRIMARY KEY,
    sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How far each log was read.
CREATE TABLE log_cursor (
    name     TEXT NOT NULL PRIMARY KEY,
    position TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- A report as it is sent. The body stands last, so that what is before it is read without it.
CREATE TABLE report (
    id         INTEGER NOT NULL PRIMARY KEY,
    report_id  TEXT NOT NULL UNIQUE,
    day        INTEGER NOT NULL,
    domain     TEXT NOT NULL,
    file_name  TEXT NOT NULL,
    created_at REAL NOT NULL,
    sessions   INTEGER NOT NULL,
    failures   INTEGER NOT NULL,
    body       BLOB NOT NULL               -- gzipped JSON
) STRICT;

CREATE INDEX report_day ON report (day, report_id);
CREATE INDEX report_domain ON report (domain, day);
CREATE INDEX report_age ON report (created_at);

-- A report to one destination.
CREATE TABLE delivery (
    id          INTEGER NOT NULL PRIMARY KEY,
    report_id   TEXT NOT NULL REFERENCES report (report_id) ON DELETE CASCADE,
    destination TEXT NOT NULL,             -- URI
    state       TEXT NOT NULL,             -- waiting, delivered, failed, suppressed
    tries       INTEGER NOT NULL,
    next_at     REAL NOT NULL,
    give_up_at  REAL NOT NULL,
    last        TEXT NOT NULL,             -- what came of the last try
    done_at     REAL NOT NULL,             -- 0: not done
    reason      TEXT NOT NULL,             -- the word of `last` that is counted by
    created_at  REAL NOT NULL,             -- the report's
    UNIQUE (report_id, destination)
) STRICT;

CREATE INDEX delivery_waiting ON delivery (state, next_at, created_at) WHERE state = 'waiting';

-- How many deliveries are in each state (`failed`, with the reason), and how many domain-days ended
-- in each way (`settled-no-record`): metrics ask every few seconds, and there may be millions.
CREATE TABLE outcome (
    what   TEXT NOT NULL,
    reason TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (what, reason)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER delivery_begins AFTER INSERT ON delivery BEGIN
    INSERT INTO outcome (what, reason, number) VALUES (new.state, new.reason, 1)
        ON CONFLICT (what, reason) DO UPDATE SET number = number + 1;
END;

CREATE TRIGGER delivery_changes AFTER UPDATE OF state, reason ON delivery BEGIN
    UPDATE outcome SET number = number - 1 WHERE what = old.state AND reason = old.reason;
    INSERT INTO outcome (what, reason, number) VALUES (new.state, new.reason, 1)
        ON CONFLICT (what, reason) DO UPDATE SET number = number + 1;
END;

CREATE TRIGGER delivery_ends AFTER DELETE ON delivery BEGIN
    UPDATE outcome SET number = number - 1 WHERE what = old.state AND reason = old.reason;
END;

CREATE TRIGGER domain_day_settled AFTER UPDATE OF why ON domain_day
WHEN old.why IS NULL AND new.why IS NOT NULL BEGIN
    INSERT INTO outcome (what, reason, number) VALUES ('settled-' || new.why, '', 1)
        ON CONFLICT (what, reason) DO UPDATE SET number = number + 1;
END;

CREATE TRIGGER domain_day_begins_settled AFTER INSERT ON domain_day
WHEN new.why IS NOT NULL BEGIN
    INSERT INTO outcome (what, reason, number) VALUES ('settled-' || new.why, '', 1)
        ON CONFLICT (what, reason) DO UPDATE SET number = number + 1;
END;

CREATE TRIGGER domain_day_ends AFTER DELETE ON domain_day
WHEN old.why IS NOT NULL BEGIN
    UPDATE outcome SET number = number - 1 WHERE what = 'settled-' || old.why AND reason = '';
END;

-- What goes to a destination for a day, suppressed deliveries left out.
CREATE TABLE destination_load (
    day         INTEGER NOT NULL,
    destination TEXT NOT NULL,
    reports     INTEGER NOT NULL,
    octets      INTEGER NOT NULL,          -- of the bodies
    PRIMARY KEY (day, destination)
) STRICT, WITHOUT ROWID;

-- Report mails handed over to a next hop on a day.
CREATE TABLE report_mail (
    day    INTEGER NOT NULL,
    domain TEXT NOT NULL,
    mails  INTEGER NOT NULL,
    PRIMARY KEY (day, domain)
) STRICT, WITHOUT ROWID;
