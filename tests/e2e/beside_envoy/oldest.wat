;; A module of version 0.1.0, with what that version alone has: callbacks for heads that are not told of the end, the configuration
;; by a function of its own, going on by one for each direction, and absent fields that are empty ones. It adds its configuration to
;; the request, the status of a look-up in vain to the response, and holds either for as long as its timer takes.
(module
  (import "env" "proxy_get_configuration" (func $configuration (param i32 i32) (result i32)))
  (import "env" "proxy_continue_request" (func $continue_request (result i32)))
  (import "env" "proxy_continue_response" (func $continue_response (result i32)))
  (import "env" "proxy_clear_route_cache" (func $clear_route_cache (result i32)))
  (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "x-none")
  (data (i32.const 32) "x-configured")
  (data (i32.const 48) "x-status")
  ;; At 64 and 68 the configuration, at 72 and 76 what was looked up, at 80 a digit.
  (global $top (mut i32) (i32.const 4096))
  (global $stopped (mut i32) (i32.const 0))
  (global $direction (mut i32) (i32.const 0))

  (func (export "proxy_abi_version_0_1_0"))
  (func (export "malloc") (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $top))
    (global.set $top (i32.and (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 7)) (i32.const -8)))
    (local.get $at))

  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (i32.and
      (i32.eqz (call $configuration (i32.const 64) (i32.const 68)))
      (i32.eqz (call $period (i32.const 20)))))
  (func (export "proxy_on_tick") (param i32)
    (local $direction i32)
    (local.set $direction (global.get $direction))
    (if (local.get $direction)
      (then
        (global.set $direction (i32.const 0))
        (if (i32.eqz (call $effective (global.get $stopped)))
          (then
            (if (i32.eq (local.get $direction) (i32.const 1))
              (then (drop (call $continue_request)))
              (else (drop (call $continue_response)))))))))

  (func $stop (param $context i32) (param $direction i32) (result i32)
    (global.set $stopped (local.get $context))
    (global.set $direction (local.get $direction))
    (i32.const 1))

  (func (export "proxy_on_request_headers") (param $context i32) (param i32) (result i32)
    (drop (call $add (i32.const 0) (i32.const 32) (i32.const 12) (i32.load (i32.const 64)) (i32.load (i32.const 68))))
    (drop (call $clear_route_cache))
    (call $stop (local.get $context) (i32.const 1)))
  (func (export "proxy_on_response_headers") (param $context i32) (param i32) (result i32)
    (i32.store8 (i32.const 80)
      (i32.add (i32.const 48) (call $get (i32.const 2) (i32.const 16) (i32.const 6) (i32.const 72) (i32.const 76))))
    (drop (call $add (i32.const 2) (i32.const 48) (i32.const 8) (i32.const 80) (i32.const 1)))
    (call $stop (local.get $context) (i32.const 2)))
)
