;; Answers its callbacks with the numbers that the request's header x-answers lists, a digit for each of request, request body,
;; request trailers, response, response body and response trailers; the SDKs have no words for some of them. What it stopped the
;; timer lets go on, unless a seventh digit is 1. It also has no SDK's habits: it imports four functions, and exports no allocator but malloc.
(module
  (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
  (import "env" "proxy_continue_stream" (func $resume (param i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 16) "x-answers")
  ;; Where the next allocation is; what is given is read at once, so that it may begin anew when it comes to the end.
  (global $top (mut i32) (i32.const 4096))
  ;; The exchange that is stopped, and of its two directions, 1 and 2, the one that is.
  (global $stopped (mut i32) (i32.const 0))
  (global $direction (mut i32) (i32.const 0))

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param $size i32) (result i32)
    (local $at i32)
    (if (i32.gt_u (i32.add (global.get $top) (local.get $size)) (i32.const 131072))
      (then (global.set $top (i32.const 4096))))
    (local.set $at (global.get $top))
    (global.set $top (i32.and (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 7)) (i32.const -8)))
    (local.get $at))

  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (i32.eqz (call $period (i32.const 20))))
  (func (export "proxy_on_tick") (param i32)
    (local $direction i32)
    (local.set $direction (global.get $direction))
    (if (local.get $direction)
      (then
        (global.set $direction (i32.const 0))
        (if (i32.eqz (call $effective (global.get $stopped)))
          (then (drop (call $resume (i32.sub (local.get $direction) (i32.const 1)))))))))

  ;; The number at a place of the list, which lies at 64; noted where it stops the exchange.
  (func $answer (param $context i32) (param $at i32) (result i32)
    (local $number i32)
    (local.set $number (i32.sub (i32.load8_u offset=64 (local.get $at)) (i32.const 48)))
    (if (i32.and (i32.ne (local.get $number) (i32.const 0)) (i32.eq (i32.load8_u (i32.const 70)) (i32.const 48)))
      (then
        (global.set $stopped (local.get $context))
        (global.set $direction (i32.add (i32.const 1) (i32.gt_u (local.get $at) (i32.const 2))))))
    (local.get $number))

  (func (export "proxy_on_request_headers") (param $context i32) (param i32 i32) (result i32)
    (i64.store offset=64 (i32.const 0) (i64.const 0x3030303030303030))
    (if (i32.eqz (call $get (i32.const 0) (i32.const 16) (i32.const 9) (i32.const 32) (i32.const 36)))
      (then (i64.store offset=64 (i32.const 0) (i64.load (i32.load (i32.const 32))))))
    (call $answer (local.get $context) (i32.const 0)))
  (func (export "proxy_on_request_body") (param $context i32) (param i32 i32) (result i32)
    (call $answer (local.get $context) (i32.const 1)))
  (func (export "proxy_on_request_trailers") (param $context i32) (param i32) (result i32)
    (call $answer (local.get $context) (i32.const 2)))
  (func (export "proxy_on_response_headers") (param $context i32) (param i32 i32) (result i32)
    (call $answer (local.get $context) (i32.const 3)))
  (func (export "proxy_on_response_body") (param $context i32) (param i32 i32) (result i32)
    (call $answer (local.get $context) (i32.const 4)))
  (func (export "proxy_on_response_trailers") (param $context i32) (param i32) (result i32)
    (call $answer (local.get $context) (i32.const 5)))
)
