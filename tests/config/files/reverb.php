<?php

use Illuminate\Support\Str;

$origins = explode(',', env('ORIGINS', ''));

return [
    // Two servers, of which one is meant.
    'default' => env('REVERB_SERVER', 'reverb'),
    'servers' => [
        'reverb' => [
            'host' => env('REVERB_SERVER_HOST', '0.0.0.0'),
            'port' => (int) env('REVERB_SERVER_PORT', 8080),
            'hostname' => env('REVERB_HOST'),
            'options' => [
                'tls' => ['local_cert' => '/etc/ssl/cert.pem', 'local_pk' => '/etc/ssl/key.pem'],
            ],
            'max_request_size' => env('REVERB_MAX_REQUEST_SIZE', 10_000),
            'magic' => 7,
            'pepper' => 'hunter5',
            'scaling' => [
                'enabled' => true,
                'channel' => env('REVERB_SCALING_CHANNEL', 'reverb'),
                'server' => [
                    'url' => env('REDIS_URL'),
                    'host' => env('REDIS_HOST', '127.0.0.1'),
                ],
            ],
            'pulse_ingest_interval' => env('REVERB_PULSE_INGEST_INTERVAL', 15),
        ],
        'other' => ['port' => 1],
    ],
    'apps' => [
        'provider' => 'config',
        'apps' => [
            [
                'key' => env('REVERB_APP_KEY'),
                'secret' => env('REVERB_APP_SECRET'),
                'app_id' => env('REVERB_APP_ID', 'shop'),
                'options' => [
                    'host' => env('REVERB_HOST'),
                    'useTLS' => env('REVERB_SCHEME', 'https') === 'https',
                ],
                'allowed_origins' => ['*'],
                'ping_interval' => env('REVERB_APP_PING_INTERVAL', 60),
                'activity_timeout' => env('REVERB_APP_ACTIVITY_TIMEOUT', 30),
                'max_message_size' => env('REVERB_APP_MAX_MESSAGE_SIZE', 10_000),
            ],
            [
                'key' => 'k2',
                'secret' => env('CHAT_SECRET'),
                'app_id' => 'chat',
                'allowed_origins' => explode(',', env('CHAT_ORIGINS', 'chat.example.com, *.chat.example.com')),
                'activity_timeout' => 60,
                'max_connections' => 500,
                'max_message_size' => 50_000,
                'accept_client_events_from' => 'members',
            ],
            [
                'key' => 'k3',
                'secret' => 'hunter4',
                'app_id' => 'closed',
                'allowed_origins' => $origins,
                'activity_timeout' => 30,
                'max_message_size' => 50_000,
            ],
            [
                'key' => 'k4',
                'secret' => env('GONE_SECRET'),
                'app_id' => 'gone',
            ],
        ],
    ],
];
