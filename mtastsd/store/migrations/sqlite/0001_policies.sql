-- All times are seconds since 1970, wall time.

-- Which steps made this schema, when. The version that counts is PRAGMA user_version.
CREATE TABLE schema_step (
    version    INTEGER NOT NULL PRIMARY KEY,
    name       TEXT NOT NULL,
    applied_at REAL NOT NULL
) STRICT;

-- The MTA-STS side of a policy domain. The body stands last, so that reading the columns before it
-- follows no overflow pages. A rowid table: rows are too long for a tree that keeps them in its
-- inner pages, and new ones are appended.
CREATE TABLE policy_domain (
    domain         TEXT NOT NULL PRIMARY KEY,  -- lower-case A-label
    record         TEXT NOT NULL,              -- TXT record: present, absent, invalid, unknown
    record_id      TEXT NOT NULL,
    checked_at     REAL NOT NULL,
    recheck_at     REAL NOT NULL,
    fetched_at     REAL NOT NULL,              -- 0: never
    expires_at     REAL NOT NULL,              -- fetched_at + max_age
    failure_kind   TEXT,                       -- NULL: nothing failed since the last success
    failure_detail TEXT,
    failure_line   INTEGER,
    failed_id      TEXT NOT NULL,              -- record id not to be fetched before retry_at
    retry_at       REAL NOT NULL,
    used_at        REAL NOT NULL,              -- last look-up, to the hour or so
    body           BLOB                        -- the policy's octets as they came; NULL: none
) STRICT;

-- "Which policies are due": used_at is in it, for the domains that nobody mails any more have the
-- oldest policies and would each cost a row read at every turn.
CREATE INDEX policy_due ON policy_domain (fetched_at, used_at) WHERE body IS NOT NULL;

-- And those that end soon: a policy that lives for hours is due long before a day has passed.
CREATE INDEX policy_end ON policy_domain (expires_at) WHERE body IS NOT NULL;

-- The DANE side of a next hop: example.com, example.com:587, [host.example.com]:587.
CREATE TABLE next_hop (
    domain     TEXT NOT NULL,                  -- the hop's policy domain
    hop        TEXT NOT NULL,
    finding    TEXT NOT NULL,
    read_at    REAL NOT NULL,
    expires_at REAL NOT NULL,                  -- end of the TTLs
    recheck_at REAL NOT NULL,
    failing    INTEGER NOT NULL,               -- 1: the last reading brought only errors
    used_at    REAL NOT NULL,
    PRIMARY KEY (domain, hop)
) STRICT, WITHOUT ROWID;
