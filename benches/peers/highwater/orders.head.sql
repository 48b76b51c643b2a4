/* highwater
events = ["OrderPlaced", "ItemAdded", "OrderShipped"]
*/

-- highwater: up
