/* highwater
events = ["A"]
