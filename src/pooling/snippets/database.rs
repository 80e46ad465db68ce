//! Database clients and poolers.

use std::net::SocketAddr;

use super::{Runtime, Service, Snippet};

/// The snippet for a database; for an unknown runtime a pooler between the two, where there is a usual one.
pub fn snippet(runtime: Option<Runtime>, service: Service, to: SocketAddr, size: u32) -> Option<Snippet> {
    match service {
        Service::Postgres => Some(sql(runtime, size).unwrap_or_else(|| pgbouncer(to, size))),
        Service::Mysql => Some(sql(runtime, size).unwrap_or_else(|| proxysql(to, size))),
        Service::Redis => redis(runtime?, size),
        Service::Https | Service::Http | Service::Dns => None,
    }
}

/// Pools inside the process; the same settings serve PostgreSQL and MySQL.
fn sql(runtime: Option<Runtime>, size: u32) -> Option<Snippet> {
    let (title, code, note) = match runtime? {
        Runtime::Node => (
            "Query through one pool",
            format!(
                "// once per process; pg:\n\
                 const pool = new Pool({{ max: {size} }})\n\
                 // mysql2:\n\
                 const pool = mysql.createPool({{ connectionLimit: {size} }})"
            ),
            "`pool.query()` gives the connection back by itself; after `pool.connect()` call `release()`.",
        ),
        Runtime::Python => (
            "Query through one pool",
            format!(
                "# once per process; SQLAlchemy:\n\
                 engine = create_engine(url, pool_size={size}, max_overflow=0)\n\
                 # psycopg 3:\n\
                 pool = ConnectionPool(dsn, min_size=1, max_size={size})"
            ),
            "Django: set `CONN_MAX_AGE`, or it opens a connection per request.",
        ),
        Runtime::Go => (
            "Let database/sql keep as many idle connections as it opens",
            format!(
                "db.SetMaxOpenConns({size})\n\
                 db.SetMaxIdleConns({size})\n\
                 db.SetConnMaxLifetime(30 * time.Minute)"
            ),
            "Where fewer may be idle than open, `database/sql` closes the rest after each query and opens them again.",
        ),
        Runtime::Java => (
            "Query through one HikariCP pool",
            format!("maximumPoolSize={size}\nmaxLifetime=1800000"),
            "Close each `Connection` after use: that gives it back to the pool.",
        ),
        Runtime::Ruby => (
            "Set Active Record's pool",
            format!(
                "# config/database.yml\nproduction:\n  pool: {size}    # Rails 8.1 calls it max_connections, and reads both"
            ),
            "",
        ),
        Runtime::DotNet => (
            "Let ADO.NET pool",
            format!("Pooling=true;Maximum Pool Size={size}   # in the connection string"),
            "A connection string that differs in anything has a pool of its own.",
        ),
        Runtime::Rust => (
            "Query through one sqlx pool",
            format!(
                "// once per process; MySqlPoolOptions alike\n\
                 let pool = PgPoolOptions::new().max_connections({size}).connect(&url).await?;"
            ),
            "",
        ),
        Runtime::Beam => (
            "Set Ecto's pool",
            format!("config :my_app, MyApp.Repo, pool_size: {size}"),
            "",
        ),
        Runtime::PgBouncer => (
            "Let PgBouncer keep its server connections",
            format!(
                "; /etc/pgbouncer/pgbouncer.ini\n\
                 [pgbouncer]\n\
                 default_pool_size = {size}\n\
                 server_idle_timeout = 600\n\
                 server_lifetime = 3600"
            ),
            "PgBouncer keeps server connections by itself: where it opens many, these two times are short, or each of many \
             (user, database) pairs has a pool of its own.",
        ),
        // PHP has no pool of its own, and proxies forward somebody else's connections.
        Runtime::Php | Runtime::Nginx | Runtime::Haproxy | Runtime::Envoy => return None,
    };
    Some(Snippet { title, code, note })
}

fn pgbouncer(to: SocketAddr, size: u32) -> Snippet {
    Snippet {
        title: "Put PgBouncer between",
        code: format!(
            "; /etc/pgbouncer/pgbouncer.ini\n\
             [databases]\n\
             * = host={} port={}\n\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = 6432\n\
             auth_file = /etc/pgbouncer/userlist.txt    ; the users and their passwords\n\
             pool_mode = transaction\n\
             default_pool_size = {size}\n\
             max_client_conn = {}",
            to.ip(),
            to.port(),
            size.saturating_mul(20).max(100)
        ),
        note: "`transaction` does not carry session state (SET, LISTEN, advisory locks); `session` does, and then only saves the \
               opening. The clients' short connections go to 127.0.0.1 then, best by its Unix socket.",
    }
}

fn proxysql(to: SocketAddr, size: u32) -> Snippet {
    Snippet {
        title: "Put ProxySQL between",
        code: format!(
            "-- on its admin port\n\
             INSERT INTO mysql_servers (hostname, port, max_connections)\n  \
                 VALUES ('{}', {}, {size});\n\
             LOAD MYSQL SERVERS TO RUNTIME; SAVE MYSQL SERVERS TO DISK;",
            to.ip(),
            to.port()
        ),
        note: "Its users are in `mysql_users`, as on the server. The clients' short connections go to ProxySQL on this host then, best by \
               its Unix socket.",
    }
}

fn redis(runtime: Runtime, size: u32) -> Option<Snippet> {
    let (title, code, note) = match runtime {
        Runtime::Node => (
            "Share one client",
            "// once per process; ioredis sends all commands over one connection\n\
             const redis = new Redis(url)"
                .to_owned(),
            "Blocking commands (BLPOP, SUBSCRIBE) need a client of their own.",
        ),
        Runtime::Python => (
            "Share one client with a bounded pool",
            format!(
                "# once per process\n\
                 pool = redis.BlockingConnectionPool.from_url(url, max_connections={size})\n\
                 client = redis.Redis(connection_pool=pool)"
            ),
            "",
        ),
        Runtime::Go => (
            "Share one client",
            format!("client := redis.NewClient(&redis.Options{{Addr: addr, PoolSize: {size}}}) // once"),
            "",
        ),
        Runtime::Java => (
            "Share one JedisPooled",
            format!(
                "var config = new ConnectionPoolConfig();\n\
                 config.setMaxTotal({size});\n\
                 config.setMaxIdle({size});\n\
                 JedisPooled jedis = new JedisPooled(config, host, port); // once"
            ),
            "Lettuce needs no pool: one connection carries all commands.",
        ),
        Runtime::Ruby => (
            "Share a connection pool",
            format!("REDIS = ConnectionPool.new(size: {size}) {{ Redis.new(url: url) }} # once"),
            "",
        ),
        Runtime::Php => (
            "Keep the connection beyond the request",
            "$redis->pconnect($host, $port);   // persistent, one per worker".to_owned(),
            "",
        ),
        Runtime::DotNet => (
            "Share one ConnectionMultiplexer",
            "// once per process; one persistent connection carries all commands\n\
             static readonly ConnectionMultiplexer Redis = ConnectionMultiplexer.Connect(options);"
                .to_owned(),
            "",
        ),
        Runtime::Rust => (
            "Share one multiplexed connection",
            "// once per process; clones share one persistent connection\n\
             let redis = client.get_multiplexed_async_connection().await?;"
                .to_owned(),
            "",
        ),
        Runtime::Beam => (
            "Keep a few named Redix connections",
            format!(
                "# {size} at most; one persistent connection pipelines many commands\n\
                 {{Redix, host: host, name: :redix}}"
            ),
            "",
        ),
        Runtime::Nginx | Runtime::Haproxy | Runtime::Envoy | Runtime::PgBouncer => return None,
    };
    Some(Snippet { title, code, note })
}
